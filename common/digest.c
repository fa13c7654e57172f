/*
 * BLAKE2b with 32 bytes of output and without a key, as RFC 7693 has it. Words are little-endian on
 * every machine: a digest may be compared with one that another machine has stored.
 */
#include "common/digest.h"

#include <endian.h>
#include <stdint.h>

enum { BLOCK = 128, ROUNDS = 12 };

struct state {
    uint64_t h[8];
    uint64_t bytes; /* Taken in so far; 2^64 of them are enough. */
    unsigned char block[BLOCK];
    size_t len; /* Of block. */
};

static const uint64_t iv[8] = {0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu,
                               0xa54ff53a5f1d36f1u, 0x510e527fade682d1u, 0x9b05688c2b3e6c1fu,
                               0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t rotate_right(uint64_t x, int bits)
{
    return (x >> bits) | (x << (64 - bits));
}

static inline void mix(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, uint64_t x, uint64_t y)
{
    *a += *b + x;
    *d = rotate_right(*d ^ *a, 32);
    *c += *d;
    *b = rotate_right(*b ^ *c, 24);
    *a += *b + y;
    *d = rotate_right(*d ^ *a, 16);
    *c += *d;
    *b = rotate_right(*b ^ *c, 63);
}

static void compress(struct state *state, bool last)
{
    uint64_t v[16], m[16];
    for (size_t i = 0; i < 16; i++) {
        memcpy(&m[i], state->block + 8 * i, 8);
        m[i] = le64toh(m[i]);
    }
    memcpy(v, state->h, sizeof(state->h));
    memcpy(v + 8, iv, sizeof(iv));
    v[12] ^= state->bytes;
    v[14] = last ? ~v[14] : v[14];
    for (size_t round = 0; round < ROUNDS; round++) {
        const uint8_t *s = sigma[round % 10];
        mix(&v[0], &v[4], &v[8], &v[12], m[s[0]], m[s[1]]);
        mix(&v[1], &v[5], &v[9], &v[13], m[s[2]], m[s[3]]);
        mix(&v[2], &v[6], &v[10], &v[14], m[s[4]], m[s[5]]);
        mix(&v[3], &v[7], &v[11], &v[15], m[s[6]], m[s[7]]);
        mix(&v[0], &v[5], &v[10], &v[15], m[s[8]], m[s[9]]);
        mix(&v[1], &v[6], &v[11], &v[12], m[s[10]], m[s[11]]);
        mix(&v[2], &v[7], &v[8], &v[13], m[s[12]], m[s[13]]);
        mix(&v[3], &v[4], &v[9], &v[14], m[s[14]], m[s[15]]);
    }
    for (size_t i = 0; i < 8; i++) {
        state->h[i] ^= v[i] ^ v[i + 8];
    }
}

/* A block is compressed only when more follows: the last one is told apart. */
static void take(struct state *state, struct sl_span text)
{
    while (text.len > 0) {
        if (state->len == BLOCK) {
            compress(state, false);
            state->len = 0;
        }
        size_t room = BLOCK - state->len, len = text.len < room ? text.len : room;
        memcpy(state->block + state->len, text.data, len);
        state->len += len;
        state->bytes += len;
        text.data += len;
        text.len -= len;
    }
}

void sl_digest(const struct sl_span *parts, size_t count, unsigned char ret[SL_DIGEST_SIZE])
{
    struct state state = {.len = 0};
    memcpy(state.h, iv, sizeof(iv));
    state.h[0] ^= 0x01010000u ^ SL_DIGEST_SIZE;
    for (size_t i = 0; i < count; i++) {
        uint64_t len = htole64(parts[i].len);
        if (count > 1) {
            take(&state, (struct sl_span){(const char *)&len, sizeof(len)});
        }
        take(&state, parts[i]);
    }
    memset(state.block + state.len, 0, BLOCK - state.len);
    compress(&state, true);
    for (size_t i = 0; i < SL_DIGEST_SIZE / 8; i++) {
        uint64_t word = htole64(state.h[i]);
        memcpy(ret + 8 * i, &word, 8);
    }
}
