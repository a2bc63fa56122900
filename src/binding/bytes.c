/* Numbers out of the bytes of a file, for the readers of data formats. */
#include <string.h>

#include "binding.h"

/* Element types of the idx format (Y. LeCun): big-endian. */
enum { IDX_U8 = 0x08, IDX_I8 = 0x09, IDX_I16 = 0x0B, IDX_I32 = 0x0C, IDX_F32 = 0x0D, IDX_F64 = 0x0E };

static size_t size_of(int code) {
  switch (code) {
  case IDX_U8:
  case IDX_I8: return 1;
  case IDX_I16: return 2;
  case IDX_I32:
  case IDX_F32: return 4;
  case IDX_F64: return 8;
  default: return 0;
  }
}

static double element(int code, const unsigned char *bytes) {
  uint64_t bits = 0;
  for (size_t k = 0; k < size_of(code); k++) bits = bits << 8 | bytes[k];
  switch (code) {
  case IDX_U8: return (double)bits;
  case IDX_I8: return (double)(int8_t)bits;
  case IDX_I16: return (double)(int16_t)bits;
  case IDX_I32: return (double)(int32_t)bits;
  case IDX_F32: {
    uint32_t word = (uint32_t)bits;
    float value;
    memcpy(&value, &word, sizeof value);
    return (double)value;
  }
  default: {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  }
}

/* core.from_bytes(data, offset, code, rows, cols, dtype): a new matrix, or a vector where cols is nil. */
static int from_bytes(lua_State *L) {
  bp_state *s = bp_state_of(L);
  size_t length;
  const char *data = luaL_checklstring(L, 1, &length);
  lua_Integer offset = luaL_checkinteger(L, 2);
  int code = (int)luaL_checkinteger(L, 3);
  size_t rows = bp_check_size(L, s, 4, "bp.data.idx");
  bool matrix = !lua_isnil(L, 5);
  size_t cols = matrix ? bp_check_size(L, s, 5, "bp.data.idx") : 1, size = size_of(code);
  bp_dtype dtype = bp_check_dtype(L, s, 6, "bp.data.idx");
  if (cols != 0 && rows > BP_MAX_ELEMENTS / cols) bp_raise(L, s, "bp.data.idx: too many elements");
  if (size == 0 || offset < 0 || (size_t)offset > length || (length - (size_t)offset) / size < rows * cols)
    bp_raise(L, s, "bp.data.idx: %d bytes do not hold %dx%d elements", (int)length, (int)rows, (int)cols);
  bp_handle *handle = bp_push_new(L, s, matrix ? bp_shape_matrix(rows, cols, dtype) : bp_shape_vector(rows, dtype));
  const unsigned char *bytes = (const unsigned char *)data + offset;
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++, bytes += size) bp_store(&handle->array, i, j, element(code, bytes));
  return 1;
}

void bp_open_bytes(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"from_bytes", from_bytes}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
}
