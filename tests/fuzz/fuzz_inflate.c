/*
 * Any bytes as deflated data: cut at other places, they must give the same; and as data to deflate:
 * it must come back.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) abort();
}

/** Inflate with pieces of `step` bytes, both ways, up to 1 MiB. */
static swerex__inflate_status inflate(const uint8_t *data, size_t size, size_t step,
                                      swerex__str *out) {
  static swerex__inflate z;
  swerex__inflate_status status = SWEREX__INFLATE_MORE;
  size_t at = 0;
  swerex__inflate_init(&z);
  while (status == SWEREX__INFLATE_MORE && out->size < (size_t)1 << 20) {
    unsigned char piece[4096];
    size_t in = size - at < step ? size - at : step, made = step < sizeof piece ? step : sizeof piece;
    status = swerex__inflate_run(&z, data + at, &in, piece, &made);
    at += in;
    require(at <= size);
    swerex__str_add(out, (const char *)piece, made);
    if (status == SWEREX__INFLATE_MORE && made == 0 && at == size) break;
  }
  return status;
}

/** Compare outputs; of malformed data, only what both have. */
static void require_same(swerex__str *a, swerex__str *b, bool cut) {
  size_t size = a->size < b->size ? a->size : b->size;
  cut = cut || a->size >= (size_t)1 << 20 || b->size >= (size_t)1 << 20;
  require(!a->failed && !b->failed && (cut || a->size == b->size));
  require(size == 0 || memcmp(a->data, b->data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static swerex__deflate deflate;
  if (size < 2) return 0;
  size_t step = data[0] % 64U + 1;
  swerex__str whole = swerex__str_new(NULL, (size_t)1 << 24), parts = whole, packed = whole;
  swerex__inflate_status first = inflate(data + 1, size - 1, size, &whole);
  swerex__inflate_status second = inflate(data + 1, size - 1, step, &parts);
  require_same(&whole, &parts, first == SWEREX__INFLATE_BROKEN);
  require(whole.size >= (size_t)1 << 20 || first == second);
  whole.size = 0;
  swerex__deflate_init(&deflate, &packed);
  for (size_t at = 1; at < size; at += step)
    swerex__deflate_add(&deflate, data + at, size - at < step ? size - at : step, false);
  swerex__deflate_add(&deflate, data, 0, true);
  require(inflate((const uint8_t *)packed.data, packed.size, step, &whole) == SWEREX__INFLATE_DONE);
  require(whole.size == size - 1 && memcmp(whole.data, data + 1, size - 1) == 0);
  swerex__str_clear(&whole);
  swerex__str_clear(&parts);
  swerex__str_clear(&packed);
  return 0;
}
