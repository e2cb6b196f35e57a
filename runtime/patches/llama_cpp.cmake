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

# One sequence's attention passes over the cells of all others. They are told by their mask, -inf in
# half precision, eight at a time. Those that it sees may lie anywhere: their keys and values are
# fetched while the ones before are computed with.
ullage_replace(ops
[[        for (int64_t ic = ic_start; ic < ic_end; ++ic) {
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
]]
[[        const auto seen_from = [&](int64_t ic) {
            while (mp && ic + 8 <= ic_end) {
#if defined(__SSE2__)
                const __m128i eight = _mm_loadu_si128((const __m128i *) (mp + ic));
                const int masked = _mm_movemask_epi8(_mm_cmpeq_epi16(eight, _mm_set1_epi16((short) 0xFC00)));
                if (masked != 0xFFFF) {
                    return ic + __builtin_ctz(~masked) / 2;
                }
#else
                uint64_t eight[2];
                memcpy(eight, mp + ic, sizeof(eight));
                if ((eight[0] ^ 0xFC00FC00FC00FC00ull) | (eight[1] ^ 0xFC00FC00FC00FC00ull)) {
                    break;
                }
#endif
                ic += 8;
            }
            while (mp && ic < ic_end && mp[ic] == 0xFC00) {
                ++ic;
            }
            return ic;
        };
        const size_t k_row = ggml_row_size(k->type, DK);
        const size_t v_row = ggml_row_size(v->type, DV);
        int64_t ahead = seen_from(ic_start);
        const auto fetch = [&]() {
            if (ahead < ic_end) {
                const char * k_ahead = (const char *) k->data + (ahead*nbk1 + ik2*nbk2 + ik3*nbk3);
                const char * v_ahead = (const char *) v->data + (ahead*nbv1 + iv2*nbv2 + iv3*nbv3);
                for (size_t at = 0; at < k_row; at += 64) {
                    __builtin_prefetch(k_ahead + at);
                }
                for (size_t at = 0; at < v_row; at += 64) {
                    __builtin_prefetch(v_ahead + at);
                }
                ahead = seen_from(ahead + 1);
            }
        };
        for (int i = 0; i < 4; ++i) {
            fetch();
        }

        for (int64_t ic = seen_from(ic_start); ic < ic_end; ic = seen_from(ic + 1)) {
            fetch();
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
]])

# Likewise where prompts are computed in tiles: most tiles are nobody's. A row of a tile is looked at
# as a whole, which compiles to a few wide instructions; stopping at its first cell does not.
ullage_replace(ops
[[                bool can_skip = true;
                for (int tq = 0; tq < tile_rows; tq++) {
]]
[[                bool can_skip = true;
                for (int tq = 0; tq < tile_rows && can_skip; tq++) {
                    const ggml_fp16_t * row = (const ggml_fp16_t *)((const char *) mask->data + (iq1 + tq)*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3]);
                    uint16_t others = 0;
                    for (int tk = 0; tk < kv_tile; tk++) {
                        others |= row[ic + tk] ^ 0xFC00;
                    }
                    can_skip = others == 0;
                }
                if (can_skip) {
                    continue;
                }
                for (int tq = 0; tq < tile_rows; tq++) {
]])

# One sequence alone has its cells side by side, so dividing the cells among the threads gives all
# the work to one of them. Its heads divide evenly.
ullage_replace(ops
[[q->type == GGML_TYPE_F32 && nek1 >= 512;
]]
[[q->type == GGML_TYPE_F32 && nek1 >= 512 && neq2 < 2*nth;
]])

file(WRITE ${ULLAGE_CPU}/ops.cpp "${ops}")

# A few columns against many rows of weights: the rows come from memory while others are multiplied.
# Left to itself, a processor waits for them first and multiplies then.
file(READ ${ULLAGE_CPU}/llamafile/sgemm.cpp sgemm)
ullage_replace(sgemm
[[            __m256 Cv[RN][4] = {};
            for (int64_t l = 0; l < k; ++l) {
]]
[[            __m256 Cv[RN][4] = {};
            for (int64_t l = 0; l < k; ++l) {
                // The next four rows, shared among the columns that these four are multiplied with.
                for (int64_t row = job % xtiles; row < 4; row += xtiles) {
                    __builtin_prefetch(A + lda * (ii + 4 + row) + l);
                }
]])

# With sixteen registers four columns at a time, too: the sums that do not fit cost less than
# reading the weights' scales twice.
ullage_replace(sgemm
[[        case 0x44:
        case 0x43:
        case 0x42:
]]
[[#if defined(__AVX2__) && defined(__F16C__)
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
]])
file(WRITE ${ULLAGE_CPU}/llamafile/sgemm.cpp "${sgemm}")

# One column: each thread reads a long stretch of the weights, some way ahead of what it multiplies.
file(READ ${ULLAGE_CPU}/ggml-cpu.c cpu)
ullage_replace(cpu
[[    if (nr0 == 1 || nr1 == 1) {
        chunk_size = 64;
    }
]]
[[    if (nr0 == 1 || nr1 == 1) {
        chunk_size = 256;
    }
]])
ullage_replace(cpu
[[                for (int64_t ir0 = iir0; ir0 < iir0 + blck_0 && ir0 < ir0_end; ir0 += num_rows_per_vec_dot) {
]]
[[                // Rows that lie one after the other are streamed, once for all columns.
                const size_t streamed = ir1 == iir1 && nb01 == ggml_row_size(type, ne00) ? nb01 : 0;
                for (int64_t ir0 = iir0; ir0 < iir0 + blck_0 && ir0 < ir0_end; ir0 += num_rows_per_vec_dot) {
                    for (size_t ahead = 0; ahead < streamed; ahead += 64) {
                        __builtin_prefetch(src0_row + ir0 * nb01 + 4096 + ahead);
                    }
]])
file(WRITE ${ULLAGE_CPU}/ggml-cpu.c "${cpu}")
