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

static inline __m256 ggml_flash_attn_ext_load(const char * row, int64_t at) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const ggml_fp16_t *) row + at)));
}

static inline void ggml_flash_attn_ext_fetch(const char * row, int64_t size) {
    for (int64_t at = 0; at < size; at += 64) {
        __builtin_prefetch(row + at);
    }
}

// One row's attention to keys and values in half precision. Sums are in single precision.
static void ggml_flash_attn_ext_row_f16(
        const float * q, const char * k, size_t nbk1, const char * v, size_t nbv1, const ggml_fp16_t * mp,
        int64_t ic_start, int64_t ic_end, int64_t DK, int64_t DV,
        float scale, float logit_softcap, float slope, float * VKQ, float & M, float & S) {
    int64_t blocks[2][GGML_FA_CELLS];
    float KQ[GGML_FA_CELLS];
    int64_t at = ic_start;
    int n = ggml_flash_attn_ext_seen((const char *) mp, 0, 1, at, ic_end, blocks[0]);

    for (int b = 0; n > 0 || at < ic_end; b ^= 1) {
        const int64_t * cells = blocks[b];
        const int64_t * next = blocks[b ^ 1];
        const int n_next = ggml_flash_attn_ext_seen((const char *) mp, 0, 1, at, ic_end, blocks[b ^ 1]);

        for (int i = 0; i < n; i += 4) {
            const char * row[4];
            __m256 sum[4];
            for (int j = 0; j < 4; ++j) {
                row[j] = k + cells[MIN(i + j, n - 1)]*nbk1;
                sum[j] = _mm256_setzero_ps();
                if (i + j < n_next) {
                    ggml_flash_attn_ext_fetch(k + next[i + j]*nbk1, DK*sizeof(ggml_fp16_t));
                }
            }
            for (int64_t d = 0; d < DK; d += 8) {
                const __m256 qd = _mm256_loadu_ps(q + d);
                for (int j = 0; j < 4; ++j) {
                    sum[j] = _mm256_fmadd_ps(ggml_flash_attn_ext_load(row[j], d), qd, sum[j]);
                }
            }
            const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(sum[0], sum[1]), _mm256_hadd_ps(sum[2], sum[3]));
            _mm_storeu_ps(KQ + i, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
        }

        const int padded = (n + 7) / 8 * 8;
        for (int i = 0; i < padded; ++i) {
            if (i >= n) {
                KQ[i] = -INFINITY;
                continue;
            }
            KQ[i] *= scale;
            if (logit_softcap != 0.0f) {
                KQ[i] = logit_softcap*tanhf(KQ[i]);
            }
            if (mp && mp[cells[i]]) {
                KQ[i] += slope*GGML_CPU_FP16_TO_FP32(mp[cells[i]]);
            }
        }
        float most[8] = { -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY };
        for (int i = 0; i < padded; i += 8) {
            for (int j = 0; j < 8; ++j) {
                most[j] = most[j] > KQ[i + j] ? most[j] : KQ[i + j];
            }
        }
        float Mnew;
        ggml_vec_max_f32(8, &Mnew, most);
        if (Mnew > M) {
            const float ms = expf(M - Mnew);
            ggml_vec_scale_f32(DV, VKQ, ms);
            S *= ms;
            M = Mnew;
        }
        if (n > 0) {
            S += ggml_vec_soft_max_f32(padded, KQ, KQ, M);
        }

        for (int64_t d = 0; d < DV; d += 64) {
            const int wide = MIN(8, (DV - d) / 8);
            __m256 sum[8];
            for (int j = 0; j < wide; ++j) {
                sum[j] = _mm256_loadu_ps(VKQ + d + 8*j);
            }
            for (int i = 0; i < n; ++i) {
                const char * row = v + cells[i]*nbv1;
                const __m256 p = _mm256_set1_ps(KQ[i]);
                if (d == 0 && i < n_next) {
                    ggml_flash_attn_ext_fetch(v + next[i]*nbv1, DV*sizeof(ggml_fp16_t));
                }
                if (wide == 8) {
                    for (int j = 0; j < 8; ++j) {
                        sum[j] = _mm256_fmadd_ps(p, ggml_flash_attn_ext_load(row, d + 8*j), sum[j]);
                    }
                } else {
                    for (int j = 0; j < wide; ++j) {
                        sum[j] = _mm256_fmadd_ps(p, ggml_flash_attn_ext_load(row, d + 8*j), sum[j]);
                    }
                }
            }
            for (int j = 0; j < wide; ++j) {
                _mm256_storeu_ps(VKQ + d + 8*j, sum[j]);
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
        if (!params->use_ref && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && DK % 8 == 0 && DV % 8 == 0) {
            memset(VKQ32, 0, DV*sizeof(float));
            ggml_flash_attn_ext_row_f16(
                pq, (const char *) k->data + ik2*nbk2 + ik3*nbk3, nbk1, (const char *) v->data + iv2*nbv2 + iv3*nbv3, nbv1, mp,
                ic_start, ic_end, DK, DV, scale, logit_softcap, slope, VKQ32, M, S);
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
