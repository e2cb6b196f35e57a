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

set(ULLAGE_OPS ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/ggml/src/ggml-cpu/ops.cpp)
if(NOT EXISTS ${ULLAGE_OPS})
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
    message(FATAL_ERROR "ggml-cpu/ops.cpp has other lines than runtime/patches/llama_cpp.cmake knows:\n${before}")
  endif()
  string(REPLACE "${before}" "${after}" changed "${${text}}")
  set(${text} "${changed}" PARENT_SCOPE)
endfunction()

file(READ ${ULLAGE_OPS} ops)

# One sequence's attention passes over the cells of all others. They are told by the bits of their
# mask, -inf in half precision, eight at a time.
ullage_replace(ops
[[        for (int64_t ic = ic_start; ic < ic_end; ++ic) {
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
]]
[[        for (int64_t ic = ic_start; ic < ic_end; ++ic) {
            while (mp && ic + 8 <= ic_end) {
                uint64_t eight[2];
                memcpy(eight, mp + ic, sizeof(eight));
                if ((eight[0] ^ 0xFC00FC00FC00FC00ull) | (eight[1] ^ 0xFC00FC00FC00FC00ull)) {
                    break;
                }
                ic += 8;
            }
            if (ic >= ic_end) {
                break;
            }
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
]])

# Likewise where prompts are computed in tiles: most tiles are nobody's.
ullage_replace(ops
[[                bool can_skip = true;
                for (int tq = 0; tq < tile_rows; tq++) {
]]
[[                bool can_skip = true;
                for (int tq = 0; tq < tile_rows && can_skip; tq++) {
                    const ggml_fp16_t * row = (const ggml_fp16_t *)((const char *) mask->data + (iq1 + tq)*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3]);
                    for (int tk = 0; tk < kv_tile && can_skip; tk++) {
                        can_skip = row[ic + tk] == 0xFC00;
                    }
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

file(WRITE ${ULLAGE_OPS} "${ops}")
