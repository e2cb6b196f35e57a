# What we change in llama.cpp where it is compiled for Ullage; why is in runtime/adr/. CMake includes
# this after each project() call, and only the outermost one's folder holds the file to change.
#
# Each change names the lines that it replaces: another version of llama.cpp, in which they differ,
# fails to configure instead of being built without them.

# What uv has built it keeps by its settings, and this file's content is none of them.
file(SHA256 ${CMAKE_CURRENT_LIST_FILE} content)
string(SUBSTRING ${content} 0 16 content)
if(NOT "${ULLAGE_PATCHES}" STREQUAL "${content}")
  message(FATAL_ERROR "write ULLAGE_PATCHES = \"${content}\" into pyproject.toml's settings of llama-cpp-python")
endif()

set(ULLAGE_CPU ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/ggml/src/ggml-cpu)
if(NOT EXISTS ${ULLAGE_CPU})
  return()
endif()

function(ullage_replace text before after)
  string(FIND "${${text}}" "${after}" done)
  if(NOT done EQUAL -1)
    return()
  endif()
  string(FIND "${${text}}" "${before}" found)
  string(FIND "${${text}}" "${before}" last REVERSE)
  if(found EQUAL -1 OR NOT found EQUAL last)
    message(FATAL_ERROR "ggml-cpu has other lines than runtime/patches/llama_cpp.cmake knows:\n${before}")
  endif()
  string(REPLACE "${before}" "${after}" changed "${${text}}")
  set(${text} "${changed}" PARENT_SCOPE)
endfunction()

file(READ ${ULLAGE_CPU}/ops.cpp ops)

# One sequence's attention passes over the cells of all others. Those that a row, or one of several,
# sees are told by their mask, -inf in half precision, and collected: they may lie anywhere. Sixty-four
# are computed with together, while the next sixty-four are fetched.
ullage_replace(ops
[=[static void ggml_compute_forward_flash_attn_ext_f16_one_chunk(
        const ggml_compute_params * params,
]=]
[=[static constexpr int GGML_FA_CELLS = GGML_FA_TILE_KV;

// Collects the next cells that one of some rows sees, in order; no mask, and they see all.
static int ggml_flash_attn_ext_seen(const char * mask, size_t nb1, int rows, int64_t & at, int64_t end, int64_t * cells) {
    int n = 0;
    while (at + 8 <= end && n + 8 <= GGML_FA_CELLS) {
        uint16_t seen[8];
        int any = mask ? 0 : 0xFFFF;
#if defined(__SSE2__)
        const __m128i inf = _mm_set1_epi16((short) 0xFC00);
        for (int r = rows - 1; any != 0xFFFF && r >= 0; --r) {
            any |= 0xFFFF & ~_mm_movemask_epi8(_mm_cmpeq_epi16(inf, _mm_loadu_si128((const __m128i *)((const ggml_fp16_t *)(mask + r*nb1) + at))));
        }
        GGML_UNUSED(seen);
#else
        for (int r = rows - 1; any != 0xFFFF && r >= 0; --r) {
            memcpy(seen, (const ggml_fp16_t *)(mask + r*nb1) + at, sizeof(seen));
            for (int i = 0; i < 8; ++i) {
                any |= seen[i] == 0xFC00 ? 0 : 3 << 2*i;
            }
        }
#endif
        if (any == 0xFFFF) {
            for (int i = 0; i < 8; ++i) {
                cells[n + i] = at + i;
            }
            n += 8;
        } else {
            for (int i = 0; any; ++i, any >>= 2) {
                cells[n] = at + i;
                n += any & 1;
            }
        }
        at += 8;
    }
    for (; at < end && at + 8 > end && n < GGML_FA_CELLS; ++at) {
        bool any = !mask;
        for (int r = rows - 1; !any && r >= 0; --r) {
            any = ((const ggml_fp16_t *)(mask + r*nb1))[at] != 0xFC00;
        }
        cells[n] = at;
        n += any;
    }
    return n;
}

#if defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#define GGML_FA_ROW_F16

static constexpr int GGML_FA_ROWS = 8;

static inline __m256 ggml_flash_attn_ext_load(const char * row, int64_t at) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const ggml_fp16_t *) row + at)));
}

// What is to come of the keys or values of some cells, cell by cell: memory gives what lies side by
// side sooner than the same lines head by head.
struct ggml_flash_attn_ext_ahead {
    const char * rows;
    size_t nb1;
    int64_t run; // bytes of a cell
    const int64_t * cells;
    int n;
    int cell;
    int64_t byte;

    int64_t lines() const {
        return n*((run + 63) / 64);
    }

    void fetch(int64_t lines) {
        for (; lines > 0 && cell < n; --lines) {
            __builtin_prefetch(rows + cells[cell]*nb1 + byte, 0, 2);
            byte += 64;
            if (byte >= run) {
                byte = 0;
                ++cell;
            }
        }
    }
};

// How like the keys of four cells the queries of RN rows are.
template <int RN>
static inline void ggml_flash_attn_ext_four(const float * const * q, const char * const * row, int64_t DK, float * KQ) {
    __m256 sum[RN][4];
    for (int r = 0; r < RN; ++r) {
        for (int j = 0; j < 4; ++j) {
            sum[r][j] = _mm256_setzero_ps();
        }
    }
    for (int64_t d = 0; d < DK; d += 8) {
        for (int j = 0; j < 4; ++j) {
            const __m256 key = ggml_flash_attn_ext_load(row[j], d);
            for (int r = 0; r < RN; ++r) {
                sum[r][j] = _mm256_fmadd_ps(key, _mm256_loadu_ps(q[r] + d), sum[r][j]);
            }
        }
    }
    for (int r = 0; r < RN; ++r) {
        const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(sum[r][0], sum[r][1]), _mm256_hadd_ps(sum[r][2], sum[r][3]));
        _mm_storeu_ps(KQ + r*GGML_FA_CELLS, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
    }
}

// Adds the values of some cells to the sums of RN rows, by their weights, in 8 W dimensions.
template <int RN, int W>
static inline void ggml_flash_attn_ext_add(
        const float * KQ, const char * v, size_t nbv1, const int64_t * cells, int n, int64_t d, int64_t DV, float * VKQ,
        ggml_flash_attn_ext_ahead & ahead, int64_t lines) {
    __m256 sum[RN][W];
    for (int r = 0; r < RN; ++r) {
        for (int j = 0; j < W; ++j) {
            sum[r][j] = _mm256_loadu_ps(VKQ + r*DV + d + 8*j);
        }
    }
    for (int i = 0; i < n; ++i) {
        const char * row = v + cells[i]*nbv1;
        ahead.fetch(lines);
        for (int j = 0; j < W; ++j) {
            const __m256 value = ggml_flash_attn_ext_load(row, d + 8*j);
            for (int r = 0; r < RN; ++r) {
                sum[r][j] = _mm256_fmadd_ps(_mm256_set1_ps(KQ[r*GGML_FA_CELLS + i]), value, sum[r][j]);
            }
        }
    }
    for (int r = 0; r < RN; ++r) {
        for (int j = 0; j < W; ++j) {
            _mm256_storeu_ps(VKQ + r*DV + d + 8*j, sum[r][j]);
        }
    }
}

static bool ggml_flash_attn_ext_in_halves(const ggml_tensor * dst) {
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    return dst->src[0]->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && k->ne[0] % 8 == 0 && v->ne[0] % 8 == 0;
}

// The attention of some rows of one sequence, in some heads, to keys and values in half precision.
// Sums are in single precision. VKQ, M and S are of each head's rows.
static void ggml_flash_attn_ext_rows_f16(
        const ggml_tensor * dst, int64_t iq1, int rows, int64_t iq3, int64_t h0, int64_t h1, int64_t ic_start, int64_t ic_end,
        float * VKQ, float * M, float * S) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    float scale, max_bias, logit_softcap;
    memcpy(&scale,         (const float *) dst->op_params + 0, sizeof(float));
    memcpy(&max_bias,      (const float *) dst->op_params + 1, sizeof(float));
    memcpy(&logit_softcap, (const float *) dst->op_params + 2, sizeof(float));
    if (logit_softcap != 0) {
        scale /= logit_softcap;
    }
    const uint32_t n_head_log2 = 1u << (uint32_t) floor(log2(q->ne[2]));
    const float m0 = powf(2.0f, -(max_bias       ) / n_head_log2);
    const float m1 = powf(2.0f, -(max_bias / 2.0f) / n_head_log2);

    const int64_t DK = k->ne[0];
    const int64_t DV = v->ne[0];
    const int64_t rk2 = q->ne[2] / k->ne[2];
    const int64_t rv2 = q->ne[2] / v->ne[2];
    const char * k_data = (const char *) k->data + iq3 / (q->ne[3] / k->ne[3]) * k->nb[3];
    const char * v_data = (const char *) v->data + iq3 / (q->ne[3] / v->ne[3]) * v->nb[3];
    const size_t mask_size = mask ? mask->nb[1] : 0;
    const char * mask_rows = mask ? (const char *) mask->data + iq1*mask_size + h0%mask->ne[2]*mask->nb[2] + iq3%mask->ne[3]*mask->nb[3] : nullptr;

    const auto ahead_of = [&](const ggml_tensor * t, const char * data, int64_t group, int64_t size, const int64_t * cells, int n) {
        const int64_t run = ((h1 - 1)/group - h0/group)*t->nb[2] + size;
        return ggml_flash_attn_ext_ahead{ data + h0/group*t->nb[2], t->nb[1], run, cells, run <= (int64_t) t->nb[1] ? n : 0, 0, 0 };
    };

    for (int64_t i = 0; i < (h1 - h0)*rows; ++i) {
        M[i] = -INFINITY;
        S[i] = 0.0f;
    }
    memset(VKQ, 0, (h1 - h0)*rows*DV*sizeof(float));

    int64_t blocks[2][GGML_FA_CELLS];
    float KQ[GGML_FA_ROWS*GGML_FA_CELLS] = {};
    int64_t at = ic_start;
    int n = ggml_flash_attn_ext_seen(mask_rows, mask_size, rows, at, ic_end, blocks[0]);

    for (int b = 0; n > 0 || at < ic_end; b ^= 1) {
        const int64_t * cells = blocks[b];
        const int n_next = ggml_flash_attn_ext_seen(mask_rows, mask_size, rows, at, ic_end, blocks[b ^ 1]);
        const int padded = (n + 7) / 8 * 8;

        ggml_flash_attn_ext_ahead k_ahead = ahead_of(k, k_data, rk2, DK*sizeof(ggml_fp16_t), blocks[b ^ 1], n_next);
        ggml_flash_attn_ext_ahead v_ahead = ahead_of(v, v_data, rv2, DV*sizeof(ggml_fp16_t), blocks[b ^ 1], n_next);
        const int64_t k_lines = n > 0 ? k_ahead.lines() / ((h1 - h0)*((n + 3) / 4)) + 1 : 0;
        const int64_t v_lines = n > 0 ? v_ahead.lines() / ((h1 - h0)*n) + 1 : 0;

        float bias[GGML_FA_ROWS][GGML_FA_CELLS] = {};
        bool is_biased[GGML_FA_ROWS] = {};
        for (int r = 0; mask && r < rows; ++r) {
            const ggml_fp16_t * mp = (const ggml_fp16_t *)(mask_rows + r*mask_size);
            for (int i = 0; i < n; ++i) {
                if (mp[cells[i]]) {
                    bias[r][i] = GGML_CPU_FP16_TO_FP32(mp[cells[i]]);
                    is_biased[r] = true;
                }
            }
        }

        for (int64_t h = h0; h < h1 && n > 0; ++h) {
            const char * k_head = k_data + h/rk2*k->nb[2];
            const char * v_head = v_data + h/rv2*v->nb[2];
            const float slope = (max_bias > 0.0f) ? h < n_head_log2 ? powf(m0, h + 1) : powf(m1, 2*(h - n_head_log2) + 1) : 1.0f;
            float * VKQ_head = VKQ + (h - h0)*rows*DV;
            const float * queries[GGML_FA_ROWS];
            for (int r = 0; r < rows; ++r) {
                queries[r] = (const float *) ((const char *) q->data + (iq1 + r)*q->nb[1] + h*q->nb[2] + iq3*q->nb[3]);
            }

            for (int i = 0; i < n; i += 4) {
                const char * row[4];
                for (int j = 0; j < 4; ++j) {
                    row[j] = k_head + cells[MIN(i + j, n - 1)]*k->nb[1];
                }
                k_ahead.fetch(k_lines);
                int r = 0;
                for (; r + 2 <= rows; r += 2) {
                    ggml_flash_attn_ext_four<2>(queries + r, row, DK, KQ + r*GGML_FA_CELLS + i);
                }
                if (r < rows) {
                    ggml_flash_attn_ext_four<1>(queries + r, row, DK, KQ + r*GGML_FA_CELLS + i);
                }
            }

            for (int r = 0; r < rows; ++r) {
                float * kq = KQ + r*GGML_FA_CELLS;
                float & Mr = M[(h - h0)*rows + r];
                float & Sr = S[(h - h0)*rows + r];
                for (int i = 0; i < padded; ++i) {
                    kq[i] *= scale;
                }
                if (logit_softcap != 0.0f) {
                    for (int i = 0; i < n; ++i) {
                        kq[i] = logit_softcap*tanhf(kq[i]);
                    }
                }
                if (is_biased[r]) {
                    for (int i = 0; i < padded; ++i) {
                        kq[i] += slope*bias[r][i];
                    }
                }
                for (int i = n; i < padded; ++i) {
                    kq[i] = -INFINITY;
                }
                float most[8];
                memcpy(most, kq, sizeof(most));
                for (int i = 8; i < padded; i += 8) {
                    for (int j = 0; j < 8; ++j) {
                        most[j] = most[j] > kq[i + j] ? most[j] : kq[i + j];
                    }
                }
                float Mnew;
                ggml_vec_max_f32(8, &Mnew, most);
                if (Mnew == -INFINITY) {
                    memset(kq, 0, n*sizeof(float));
                    continue;
                }
                if (Mnew > Mr) {
                    const float ms = expf(Mr - Mnew);
                    ggml_vec_scale_f32(DV, VKQ_head + r*DV, ms);
                    Sr *= ms;
                    Mr = Mnew;
                }
                Sr += ggml_vec_soft_max_f32(padded, kq, kq, Mr);
            }

            int r = 0;
            for (; r + 4 <= rows; r += 4) {
                int64_t d = 0;
                for (; d + 16 <= DV; d += 16) {
                    ggml_flash_attn_ext_add<4, 2>(KQ + r*GGML_FA_CELLS, v_head, v->nb[1], cells, n, d, DV, VKQ_head + r*DV, v_ahead, d == 0 && r == 0 ? v_lines : 0);
                }
                if (d < DV) {
                    ggml_flash_attn_ext_add<4, 1>(KQ + r*GGML_FA_CELLS, v_head, v->nb[1], cells, n, d, DV, VKQ_head + r*DV, v_ahead, 0);
                }
            }
            for (; r < rows; ++r) {
                int64_t d = 0;
                for (; d + 64 <= DV; d += 64) {
                    ggml_flash_attn_ext_add<1, 8>(KQ + r*GGML_FA_CELLS, v_head, v->nb[1], cells, n, d, DV, VKQ_head + r*DV, v_ahead, d == 0 && r == 0 ? v_lines : 0);
                }
                for (; d < DV; d += 8) {
                    ggml_flash_attn_ext_add<1, 1>(KQ + r*GGML_FA_CELLS, v_head, v->nb[1], cells, n, d, DV, VKQ_head + r*DV, v_ahead, d == 0 && r == 0 ? v_lines : 0);
                }
            }
        }
        n = n_next;
    }
}
#endif

static void ggml_compute_forward_flash_attn_ext_f16_one_chunk(
        const ggml_compute_params * params,
]=])
ullage_replace(ops
[=[        // online softmax / attention
        // loop over n_kv and n_head_kv
        // ref: https://arxiv.org/pdf/2112.05682.pdf

        for (int64_t ic = ic_start; ic < ic_end; ++ic) {
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
]=]
[=[        // online softmax / attention
        // loop over n_kv and n_head_kv
        // ref: https://arxiv.org/pdf/2112.05682.pdf

        bool done = false;
#if defined(GGML_FA_ROW_F16)
        if (!params->use_ref && ggml_flash_attn_ext_in_halves(dst)) {
            ggml_flash_attn_ext_rows_f16(dst, iq1, 1, iq3, iq2, iq2 + 1, ic_start, ic_end, VKQ32, &M, &S);
            done = true;
        }
#endif
        int64_t cells[GGML_FA_CELLS];
        int64_t at = ic_start;
        for (int i = 0, n = 0; !done && (i < n || at < ic_end);) {
            if (i == n) {
                n = ggml_flash_attn_ext_seen((const char *) mp, 0, 1, at, ic_end, cells);
                i = 0;
                continue;
            }
            const int64_t ic = cells[i++];
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
]=])
ullage_replace(ops
[=[        if (v->type == GGML_TYPE_F16) {
            for (int64_t d = 0; d < DV; ++d) {
                VKQ32[d] = GGML_CPU_FP16_TO_FP32(VKQ16[d]);
]=]
[=[        if (v->type == GGML_TYPE_F16 && !done) {
            for (int64_t d = 0; d < DV; ++d) {
                VKQ32[d] = GGML_CPU_FP16_TO_FP32(VKQ16[d]);
]=])

# Likewise where the rows of a prompt are computed in tiles. A tile is as large as its rows, not always
# as 64, and its keys are turned about eight by eight: one by one that takes longer than to multiply
# six rows.
ullage_replace(ops
[=[        GGML_ASSERT(tile_rows > 0);

        const uint32_t h = iq2; // head index
]=]
[=[        GGML_ASSERT(tile_rows > 0);
#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic)
        const int rows = MIN(Q_TILE_SZ, (tile_rows + GEMM_RM - 1) / GEMM_RM * GEMM_RM);
#else
        const int rows = tile_rows;
#endif

        const uint32_t h = iq2; // head index
]=])
ullage_replace(ops
[=[        for (int64_t ic = 0; ic < nek1; ic += KV_TILE_SZ) {
            const int kv_tile = (int)std::min((int64_t)KV_TILE_SZ, nek1 - ic);

            // skip the tile entirely if all the masks are -inf
            if (mask) {
                bool can_skip = true;
                for (int tq = 0; tq < tile_rows; tq++) {
                    const ggml_fp16_t * mp_row = (const ggml_fp16_t *)((const char *) mask->data + (iq1 + tq)*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3]);
                    for (int tk = 0; tk < kv_tile; tk++) {
                        mask32[tq * KV_TILE_SZ + tk] = slope * GGML_CPU_FP16_TO_FP32(mp_row[ic + tk]);
                        if (mask32[tq * KV_TILE_SZ + tk] != -INFINITY) {
                            can_skip = false;
                        }
                    }
]=]
[=[        const char * mask_rows = mask ? (const char *) mask->data + iq1*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3] : nullptr;
        const size_t mask_size = mask ? mask->nb[1] : 0;
        const char * k_rows = (const char *) k->data + ik2*nbk2 + ik3*nbk3;
        const char * v_rows = (const char *) v->data + iv2*nbv2 + iv3*nbv3;
        int64_t blocks[2][KV_TILE_SZ];
        int64_t at = 0;
        int n_next = ggml_flash_attn_ext_seen(mask_rows, mask_size, tile_rows, at, nek1, blocks[0]);

        for (int b = 0; n_next > 0 || at < nek1; b ^= 1) {
            const int64_t * cells = blocks[b];
            const int64_t * next = blocks[b ^ 1];
            const int kv_tile = n_next;
            n_next = ggml_flash_attn_ext_seen(mask_rows, mask_size, tile_rows, at, nek1, blocks[b ^ 1]);
            if (kv_tile == 0) {
                continue;
            }
            const auto fetch = [&](const char * from, size_t nb1, int i, int64_t size) {
                for (int64_t byte = 0; i < n_next && byte < size; byte += 64) {
                    __builtin_prefetch(from + next[i]*nb1 + byte);
                }
            };

            if (mask) {
                for (int tq = 0; tq < tile_rows; tq++) {
                    const ggml_fp16_t * mp_row = (const ggml_fp16_t *)(mask_rows + tq*mask_size);
                    float * mask_to = mask32 + tq * KV_TILE_SZ;
                    if (cells[kv_tile - 1] - cells[0] == kv_tile - 1) {
                        ggml_cpu_fp16_to_fp32(mp_row + cells[0], mask_to, kv_tile);
                    } else {
                        for (int tk = 0; tk < kv_tile; tk++) {
                            mask_to[tk] = GGML_CPU_FP16_TO_FP32(mp_row[cells[tk]]);
                        }
                    }
                    if (slope != 1.0f) {
                        ggml_vec_scale_f32(kv_tile, mask_to, slope);
                    }
]=])
ullage_replace(ops
[=[                        mask32[tq * KV_TILE_SZ + tk] = -INFINITY;
                    }
                }

                if (can_skip) {
                    continue;
                }
            }
]=]
[=[                        mask32[tq * KV_TILE_SZ + tk] = -INFINITY;
                    }
                }
            }
]=])
ullage_replace(ops
[=[            for (int tk = 0; tk < kv_tile; tk++) {
                const char * k_data = (const char *)k->data + (ic + tk)*nbk1 + ik2*nbk2 + ik3*nbk3;
                if (kv_type == GGML_TYPE_F16) {
]=]
[=[            int packed = 0;
#if defined(GGML_FA_ROW_F16)
            for (; kv_type == GGML_TYPE_F16 && DK % 8 == 0 && packed + 8 <= kv_tile; packed += 8) {
                for (int i = 0; i < 8; ++i) {
                    fetch(k_rows, nbk1, packed + i, DK*sizeof(ggml_fp16_t));
                }
                for (int64_t dk = 0; dk < DK; dk += 8) {
                    __m256 row[8], pair[8], four[8];
                    for (int i = 0; i < 8; ++i) {
                        row[i] = ggml_flash_attn_ext_load(k_rows + cells[packed + i]*nbk1, dk);
                    }
                    for (int i = 0; i < 8; i += 2) {
                        pair[i]     = _mm256_unpacklo_ps(row[i], row[i + 1]);
                        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
                    }
                    for (int i = 0; i < 8; i += 4) {
                        four[i]     = _mm256_shuffle_ps(pair[i],     pair[i + 2], 0x44);
                        four[i + 1] = _mm256_shuffle_ps(pair[i],     pair[i + 2], 0xEE);
                        four[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
                        four[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xEE);
                    }
                    for (int i = 0; i < 4; ++i) {
                        _mm256_storeu_ps(K_f32 + (dk + i)*KV_TILE_SZ + packed,     _mm256_permute2f128_ps(four[i], four[i + 4], 0x20));
                        _mm256_storeu_ps(K_f32 + (dk + i + 4)*KV_TILE_SZ + packed, _mm256_permute2f128_ps(four[i], four[i + 4], 0x31));
                    }
                }
            }
#endif
            for (int tk = packed; tk < kv_tile; tk++) {
                const char * k_data = k_rows + cells[tk]*nbk1;
                if (kv_type == GGML_TYPE_F16) {
]=])
ullage_replace(ops
[=[            memset(KQ, 0, Q_TILE_SZ * KV_TILE_SZ * sizeof(float));
            simd_gemm(KQ, (const float *)Q_q, K_f32, Q_TILE_SZ, DK, KV_TILE_SZ);
            ggml_vec_scale_f32(Q_TILE_SZ * KV_TILE_SZ, KQ, scale);
]=]
[=[            memset(KQ, 0, rows * KV_TILE_SZ * sizeof(float));
            simd_gemm(KQ, (const float *)Q_q, K_f32, rows, DK, KV_TILE_SZ);
            ggml_vec_scale_f32(rows * KV_TILE_SZ, KQ, scale);
]=])
ullage_replace(ops
[=[            if (kv_tile < KV_TILE_SZ) {
                for (int tq = 0; tq < Q_TILE_SZ; tq++) {
]=]
[=[            if (kv_tile < KV_TILE_SZ) {
                for (int tq = 0; tq < tile_rows; tq++) {
]=])
ullage_replace(ops
[=[            for (int tq = 0; tq < Q_TILE_SZ; tq++) {
                float * kq_row = KQ + tq * KV_TILE_SZ;

                float tile_max;
                ggml_vec_max_f32(KV_TILE_SZ, &tile_max, kq_row);
]=]
[=[            for (int tq = 0; tq < tile_rows; tq++) {
                float * kq_row = KQ + tq * KV_TILE_SZ;

                float most[8];
                memcpy(most, kq_row, sizeof(most));
                for (int tk = 8; tk < KV_TILE_SZ; tk += 8) {
                    for (int i = 0; i < 8; ++i) {
                        most[i] = most[i] > kq_row[tk + i] ? most[i] : kq_row[tk + i];
                    }
                }
                float tile_max;
                ggml_vec_max_f32(8, &tile_max, most);
]=])
ullage_replace(ops
[=[                const char * v_data = (const char *)v->data + (ic + tk)*nbv1 + iv2*nbv2 + iv3*nbv3;
                if (kv_type == GGML_TYPE_F16) {
                    ggml_cpu_fp16_to_fp32(]=]
[=[                const char * v_data = v_rows + cells[tk]*nbv1;
                fetch(v_rows, nbv1, tk, DV*ggml_type_size(kv_type));
                if (kv_type == GGML_TYPE_F16) {
                    ggml_cpu_fp16_to_fp32(]=])
ullage_replace(ops
[=[            simd_gemm(VKQ32, KQ, V32, Q_TILE_SZ, KV_TILE_SZ, DV);
]=]
[=[            simd_gemm(VKQ32, KQ, V32, rows, KV_TILE_SZ, DV);
]=])

# Which rows share a tile: those of one sequence, which see what the first of them sees. Rows of
# others would read each other's cells, and a row alone has nobody to share with.
ullage_replace(ops
[=[static void ggml_compute_forward_flash_attn_ext_f16(
        const ggml_compute_params * params,
        ggml_tensor * dst) {
]=]
[=[static int64_t ggml_flash_attn_ext_rows_together(const ggml_tensor * mask, int64_t iq1, int64_t iq3, int64_t end) {
    if (!mask) {
        return end;
    }
    const auto row = [&](int64_t i) {
        return (const ggml_fp16_t *)((const char *) mask->data + i*mask->nb[1] + (iq3%mask->ne[3])*mask->nb[3]);
    };
    int64_t last = mask->ne[0] - 1;
    while (last >= 0 && row(iq1)[last] == 0xFC00) {
        --last;
    }
    int64_t next = iq1 + 1;
    while (last >= 0 && next < end && row(next)[last] != 0xFC00) {
        ++next;
    }
    return next;
}

#if defined(GGML_FA_ROW_F16)
// Threads share parts of the work: rows of one sequence, in some of the heads.
static void ggml_flash_attn_ext_by_heads(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * q     = dst->src[0];
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * mask  = dst->src[3];
    const ggml_tensor * sinks = dst->src[4];
    const int64_t neq1 = q->ne[1];
    const int64_t neq2 = q->ne[2];
    const int64_t DV   = dst->ne[0];

    struct part { int64_t iq1, iq3; int rows; };
    thread_local std::vector<part> parts;
    parts.clear();
    for (int64_t iq3 = 0; iq3 < q->ne[3]; ++iq3) {
        for (int64_t iq1 = 0; iq1 < neq1;) {
            const int64_t end = ggml_flash_attn_ext_rows_together(mask, iq1, iq3, neq1);
            const int most = end - iq1 <= GGML_FA_ROWS ? GGML_FA_ROWS : GGML_FA_TILE_Q;
            while (iq1 < end) {
                const int rows = MIN(most, (int) (end - iq1));
                parts.push_back({ iq1, iq3, rows });
                iq1 += rows;
            }
        }
    }

    // Heads that share keys and values stay together, where they see the same and are enough.
    const bool apart = k->ne[2] < params->nth || (mask && mask->ne[2] > 1);
    const int64_t group = apart ? 1 : neq2 / k->ne[2];
    const int64_t shares = mask && mask->ne[2] > 1 ? neq2 : MIN(neq2 / group, (int64_t) params->nth);
    thread_local std::vector<float> state;

    for (int64_t at = params->ith; at < (int64_t) parts.size()*shares; at = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const part & one = parts[at / shares];
        const int64_t h0 = at % shares       * (neq2 / group) / shares * group;
        const int64_t h1 = (at % shares + 1) * (neq2 / group) / shares * group;
        if (one.rows > GGML_FA_ROWS) {
            for (int64_t h = h0; h < h1; ++h) {
                const int64_t ir = (one.iq3*neq2 + h)*neq1 + one.iq1;
                ggml_compute_forward_flash_attn_ext_tiled(params, dst, ir, ir + one.rows);
            }
            continue;
        }
        const int64_t sums = (h1 - h0)*one.rows;
        state.resize(sums*(DV + 2));
        float * VKQ = state.data();
        float * M = VKQ + sums*DV;
        float * S = M + sums;
        ggml_flash_attn_ext_rows_f16(dst, one.iq1, one.rows, one.iq3, h0, h1, 0, k->ne[1], VKQ, M, S);
        for (int64_t i = 0; i < sums; ++i) {
            const int64_t h = h0 + i / one.rows;
            float by = 1.0f;
            if (sinks) {
                const float s = ((const float *) sinks->data)[h];
                if (s > M[i]) {
                    by = expf(M[i] - s);
                    S[i] = S[i]*by + 1.0f;
                } else {
                    S[i] += expf(s - M[i]);
                }
            }
            ggml_vec_scale_f32(DV, VKQ + i*DV, S[i] == 0.0f ? 0.0f : by / S[i]);
            // permute(0, 2, 1, 3)
            memcpy((char *) dst->data + (one.iq3*dst->ne[2]*dst->ne[1] + h + (one.iq1 + i % one.rows)*dst->ne[1])*dst->nb[1], VKQ + i*DV, dst->nb[1]);
        }
    }
}
#endif

static void ggml_compute_forward_flash_attn_ext_f16(
        const ggml_compute_params * params,
        ggml_tensor * dst) {
]=])
ullage_replace(ops
[=[        static constexpr int64_t Q_TILE_SZ  = ggml_fa_tile_config::Q;
        bool use_tiled = !use_ref &&
                               (q->type == GGML_TYPE_F32 &&
                                kv_is_f32_or_f16 &&
                                k->type == v->type &&
                                neq1 >= Q_TILE_SZ);
]=]
[=[        bool use_tiled = !use_ref &&
                               (q->type == GGML_TYPE_F32 &&
                                kv_is_f32_or_f16 &&
                                k->type == v->type &&
                                neq1 > 1);
]=])
# Both ways of computing a row are at work at once, in one buffer.
ullage_replace(ops
[=[        float       * VKQ32 = (float       *) params->wdata + ith*(1*DK + 2*DV + CACHE_LINE_SIZE_F32); // FP32 VKQ accumulator
]=]
[=[        const int64_t tile = GGML_FA_TILE_Q*DK + 2*GGML_FA_TILE_Q*GGML_FA_TILE_KV + GGML_FA_TILE_Q*DV + GGML_FA_TILE_KV*DV + GGML_FA_TILE_KV*DK;
        float       * VKQ32 = (float       *) params->wdata + ith*((write_partials ? 1*DK + 2*DV : tile) + CACHE_LINE_SIZE_F32); // FP32 VKQ accumulator
]=])
ullage_replace(ops
[=[        int current_chunk = ith;

        while (current_chunk < nchunk) {
            const int64_t ir0 = dr * current_chunk;
            const int64_t ir1 = MIN(ir0 + dr, nr);

            if (use_tiled) {
                ggml_compute_forward_flash_attn_ext_tiled(params, dst, ir0, ir1);
            } else {
]=]
[=[        int current_chunk = ith;

#if defined(GGML_FA_ROW_F16)
        if (!use_ref && ggml_flash_attn_ext_in_halves(dst)) {
            ggml_flash_attn_ext_by_heads(params, dst);
            return;
        }
#endif
        thread_local std::vector<int64_t> together;
        together.resize(use_tiled ? neq1*neq3 : 0);
        for (int64_t i = 0; i < (int64_t) together.size();) {
            const int64_t next = i/neq1*neq1 + ggml_flash_attn_ext_rows_together(dst->src[3], i%neq1, i/neq1, neq1);
            for (; i < next; ++i) {
                together[i] = next%neq1 == 0 ? neq1 : next%neq1;
            }
        }

        while (current_chunk < nchunk) {
            const int64_t ir0 = dr * current_chunk;
            const int64_t ir1 = MIN(ir0 + dr, nr);

            if (use_tiled) {
                for (int64_t ir = ir0; ir < ir1;) {
                    const int64_t iq1 = ir%neq1;
                    const int64_t end = MIN(ir1, ir - iq1 + together[ir/(neq2*neq1)*neq1 + iq1]);
                    if (end - ir >= 3) {
                        ggml_compute_forward_flash_attn_ext_tiled(params, dst, ir, end);
                    } else {
                        ggml_compute_forward_flash_attn_ext_f16_one_chunk(params, dst, ir, end, 0, nek1, nullptr, 0);
                    }
                    ir = end;
                }
            } else {
]=])

# One sequence alone has its cells side by side, so dividing the cells among the threads gives all
# the work to one of them. Its heads divide evenly.
ullage_replace(ops
[=[q->type == GGML_TYPE_F32 && nek1 >= 512;
]=]
[=[q->type == GGML_TYPE_F32 && nek1 >= 512 && neq2 < 2*nth;
]=])

file(WRITE ${ULLAGE_CPU}/ops.cpp "${ops}")

# A few columns against many rows of weights: the rows come from memory while others are multiplied.
# Left to itself, a processor waits for them first and multiplies then.
file(READ ${ULLAGE_CPU}/llamafile/sgemm.cpp sgemm)
ullage_replace(sgemm
[=[            __m256 Cv[RN][4] = {};
            for (int64_t l = 0; l < k; ++l) {
]=]
[=[            __m256 Cv[RN][4] = {};
            for (int64_t l = 0; l < k; ++l) {
                // The next four rows, shared among the columns that these four are multiplied with.
                for (int64_t row = job % xtiles; row < 4; row += xtiles) {
                    __builtin_prefetch(A + lda * (ii + 4 + row) + l);
                }
]=])

# With sixteen registers four columns at a time, too: the sums that do not fit cost less than
# reading the weights' scales twice.
ullage_replace(sgemm
[=[        case 0x44:
        case 0x43:
        case 0x42:
]=]
[=[#if defined(__AVX2__) && defined(__F16C__)
        case 0x44:
            mc = 4;
            nc = 4;
            gemm4xN<4>(m0, m, n0, n);
            break;
        case 0x43:
            mc = 4;
            nc = 3;
            gemm4xN<3>(m0, m, n0, n);
            break;
#else
        case 0x44:
        case 0x43:
#endif
        case 0x42:
]=])
file(WRITE ${ULLAGE_CPU}/llamafile/sgemm.cpp "${sgemm}")

# One column: each thread reads a long stretch of the weights, some way ahead of what it multiplies.
file(READ ${ULLAGE_CPU}/ggml-cpu.c cpu)
ullage_replace(cpu
[=[    if (nr0 == 1 || nr1 == 1) {
        chunk_size = 64;
    }
]=]
[=[    if (nr0 == 1 || nr1 == 1) {
        chunk_size = 256;
    }
]=])
ullage_replace(cpu
[=[                for (int64_t ir0 = iir0; ir0 < iir0 + blck_0 && ir0 < ir0_end; ir0 += num_rows_per_vec_dot) {
]=]
[=[                // Rows that lie one after the other are streamed, once for all columns.
                const size_t streamed = ir1 == iir1 && nb01 == ggml_row_size(type, ne00) ? nb01 : 0;
                for (int64_t ir0 = iir0; ir0 < iir0 + blck_0 && ir0 < ir0_end; ir0 += num_rows_per_vec_dot) {
                    for (size_t ahead = 0; ahead < streamed; ahead += 64) {
                        __builtin_prefetch(src0_row + ir0 * nb01 + 4096 + ahead);
                    }
]=])
file(WRITE ${ULLAGE_CPU}/ggml-cpu.c "${cpu}")
