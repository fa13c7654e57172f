/*
 * What the embed stage finds in Redis under one of its keys, which may be anybody's bytes, and
 * where it cuts a text that is too long, chosen by the first byte. Checked: what is taken for a
 * vector has the digest and as many finite numbers as were asked for; a cut is inside the text,
 * between two characters, and both sides of it together are the text.
 */
#include "common/chunk.h"
#include "tests/support/test.h"
#include "workers/embed/cache.h"
#include "workers/embed/split.h"

#include <math.h>
#include <stdint.h>

enum { DIM_MAX = 64, MIN = 8 };

static void read_entry(struct sl_span bytes, size_t dim)
{
    struct embed_key key;
    float vector[DIM_MAX];
    memset(key.digest, 'k', sizeof(key.digest));
    if (!embed_cache_read(bytes, &key, dim, vector)) {
        return;
    }
    CHECK(bytes.len == sizeof(key.digest) + dim * sizeof(float) && dim > 0);
    CHECK(memcmp(bytes.data, key.digest, sizeof(key.digest)) == 0);
    for (size_t i = 0; i < dim; i++) {
        CHECK(isfinite(vector[i]));
    }
}

static void cut(struct sl_span text)
{
    size_t at = split_at(text, MIN);
    CHECK(at < text.len || text.len == 0);
    if (at == 0) {
        return;
    }
    size_t len = split_trim(text, at);
    CHECK(len > 0 && len <= at);
    if (sl_utf8_valid(text) == text.len) {
        CHECK_INT(sl_utf8_valid((struct sl_span){text.data, at}), at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    /* Copied, so that a byte read behind it is found. */
    char *copy = malloc(size - 1 > 0 ? size - 1 : 1);
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if (data[0] < DIM_MAX) {
        read_entry((struct sl_span){copy, size - 1}, data[0]);
    } else {
        cut((struct sl_span){copy, size - 1});
    }
    free(copy);
    return 0;
}
