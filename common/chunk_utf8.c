/*
 * UTF-8: what is valid, and how long. Runs of ASCII, most of most texts, are passed over 32 bytes
 * at a time.
 */
#include "common/chunk_internal.h"

#include <endian.h>

/* The length of the valid sequence at p (at most left bytes), or 0. Table 3-7 of Unicode 15. */
static size_t sequence_length(const unsigned char *p, size_t left)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (len == 0 || len > left || p[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0; /* Longer than needed, a surrogate, or over U+10FFFF. */
    }
    return len;
}

size_t sl_utf8_sequence(struct sl_span text)
{
    return text.len > 0 ? sequence_length((const unsigned char *)text.data, text.len) : 0;
}

/* Inline, since most texts that are checked are short: a call would cost more than they do. */
static inline __attribute__((always_inline)) size_t ascii_run(const unsigned char *data, size_t len)
{
    const uint64_t tops = 0x8080808080808080u;
    uint64_t words[4];
    size_t at = 0;
    for (; len - at >= sizeof(words); at += sizeof(words)) {
        memcpy(words, data + at, sizeof(words));
        if (((words[0] | words[1] | words[2] | words[3]) & tops) != 0) {
            break;
        }
    }
    for (; len - at >= sizeof(words[0]); at += sizeof(words[0])) {
        memcpy(words, data + at, sizeof(words[0]));
        uint64_t others = le64toh(words[0]) & tops;
        if (others != 0) {
            return at + (size_t)__builtin_ctzll(others) / 8;
        }
    }
    while (at < len && data[at] < 0x80) {
        at++;
    }
    return at;
}

size_t sl_chunk_ascii(const char *bytes, size_t len)
{
    return ascii_run((const unsigned char *)bytes, len);
}

size_t sl_utf8_valid(struct sl_span text)
{
    const unsigned char *data = (const unsigned char *)text.data;
    size_t at = 0;
    while (at < text.len) {
        at += ascii_run(data + at, text.len - at);
        while (at < text.len && data[at] >= 0x80) {
            size_t len = sequence_length(data + at, text.len - at);
            if (len == 0) {
                return at;
            }
            at += len;
        }
    }
    return at;
}
