/*
 * UUIDv5 is the SHA-1 of namespace and name, cut to 128 bits of which six say what it is. SHA-1
 * keeps names apart that nobody chooses with an effort; nothing secret hangs on it.
 *
 * The hash is that of FIPS 180-4: the bytes fill one block after another, the last with a one bit,
 * zeros and the length.
 */
#include "common/uuid.h"

#include <stdio.h>

enum { BLOCK = 64, ROUNDS = 80, DIGEST = 20, SPACE = 16 };

struct sha1 {
    uint32_t state[5];
    unsigned char block[BLOCK];
    size_t used;
    uint64_t len; /* Bytes in all. */
};

static uint32_t rotate(uint32_t word, unsigned bits)
{
    return word << bits | word >> (32 - bits);
}

static void fill_words(const unsigned char *block, uint32_t words[ROUNDS])
{
    for (size_t i = 0; i < 16; i++) {
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
                   (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    }
    for (size_t i = 16; i < ROUNDS; i++) {
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    }
}

static uint32_t mix(size_t round, const uint32_t s[5])
{
    if (round < 20) {
        return ((s[1] & s[2]) | (~s[1] & s[3])) + 0x5a827999;
    }
    if (round < 40) {
        return (s[1] ^ s[2] ^ s[3]) + 0x6ed9eba1;
    }
    if (round < 60) {
        return ((s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3])) + 0x8f1bbcdc;
    }
    return (s[1] ^ s[2] ^ s[3]) + 0xca62c1d6;
}

static void add_block(struct sha1 *sha)
{
    uint32_t words[ROUNDS];
    uint32_t s[5];
    fill_words(sha->block, words);
    memcpy(s, sha->state, sizeof(s));
    for (size_t i = 0; i < ROUNDS; i++) {
        uint32_t first = rotate(s[0], 5) + mix(i, s) + s[4] + words[i];
        s[4] = s[3];
        s[3] = s[2];
        s[2] = rotate(s[1], 30);
        s[1] = s[0];
        s[0] = first;
    }
    for (size_t i = 0; i < 5; i++) {
        sha->state[i] += s[i];
    }
    sha->used = 0;
}

static void add_byte(struct sha1 *sha, unsigned char byte)
{
    sha->block[sha->used++] = byte;
    if (sha->used == BLOCK) {
        add_block(sha);
    }
}

static void add(struct sha1 *sha, const void *data, size_t len)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++) {
        add_byte(sha, bytes[i]);
    }
    sha->len += len;
}

static void end(struct sha1 *sha, unsigned char digest[DIGEST])
{
    add_byte(sha, 0x80);
    while (sha->used != BLOCK - 8) {
        add_byte(sha, 0);
    }
    for (int shift = 56; shift >= 0; shift -= 8) {
        add_byte(sha, (unsigned char)(sha->len * 8 >> shift));
    }
    for (size_t i = 0; i < DIGEST; i++) {
        digest[i] = (unsigned char)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void sl_uuid5(const unsigned char space[SPACE], struct sl_span name, char ret[SL_UUID_TEXT])
{
    struct sha1 sha = {.state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
    unsigned char digest[DIGEST];
    size_t at = 0;
    add(&sha, space, SPACE);
    add(&sha, name.data, name.len);
    end(&sha, digest);
    digest[6] = (unsigned char)((digest[6] & 0x0f) | 0x50); /* Version 5. */
    digest[8] = (unsigned char)((digest[8] & 0x3f) | 0x80); /* The variant of RFC 9562. */
    for (size_t i = 0; i < 16; i++) {
        const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
        at += (size_t)snprintf(ret + at, SL_UUID_TEXT - at, "%s%02x", dash, digest[i]);
    }
}
