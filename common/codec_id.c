/*
 * Query ids: UUIDs of version 7 (RFC 9562), whose first 48 bits are a time in Unix milliseconds, so
 * that ids sort by age.
 *
 * New ones are ordered within a process: within a millisecond the 12 bits behind the version count
 * up from a random start, and when they run out the id's time goes one ahead. A clock that steps
 * back by less than BACK_MS does not break the order; one that steps back further is believed, or
 * one wrong reading would spoil the time of every later id.
 *
 * Derived ones have a hash of the record's position in place of chance. The hash's keys are part of
 * the wire format: two versions that run side by side must give one record the same id.
 */
#include "common/codec.h"

#include "common/map.h"

#include <assert.h>
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>

enum { BACK_MS = 10000, RANDOM_BUFFER = 256, COUNTER_START_MASK = 0x7ff, COUNTER_MAX = 0xfff };

bool sl_id_valid(struct sl_span id)
{
    for (size_t i = 0; i < id.len && i <= 64; i++) {
        char c = id.data[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-')) {
            return false;
        }
    }
    return id.len >= 1 && id.len <= 64;
}

/* Version 7: 48 bits of time, the version, 12 bits, the variant, 62 bits. */
static void format_id(int64_t unix_ms, uint64_t high, uint64_t low, char ret[37])
{
    uint64_t time = (uint64_t)(unix_ms > 0 ? unix_ms : 0) & 0xffffffffffffu;
    snprintf(ret, 37, "%08x-%04x-7%03x-%04x-%012llx", (unsigned)(time >> 16),
             (unsigned)(time & 0xffff), (unsigned)(high & 0xfff),
             (unsigned)(0x8000 | ((low >> 48) & 0x3fff)),
             (unsigned long long)(low & 0xffffffffffffu));
}

/* Eight random bytes; the kernel is asked once for many, and 256 bytes come whole. */
static uint64_t random64(void)
{
    static unsigned char buffer[RANDOM_BUFFER];
    static size_t left;
    uint64_t value;
    if (left < sizeof(value)) {
        ssize_t got = getrandom(buffer, sizeof(buffer), 0);
        assert(got == (ssize_t)sizeof(buffer));
        left = sizeof(buffer);
    }
    left -= sizeof(value);
    memcpy(&value, buffer + left, sizeof(value));
    return value;
}

void sl_id_new(int64_t unix_ms, char ret[37])
{
    static int64_t last_ms = INT64_MIN / 2;
    static uint64_t counter;
    if (unix_ms > last_ms || unix_ms < last_ms - BACK_MS) {
        last_ms = unix_ms;
        counter = random64() & COUNTER_START_MASK;
    } else if (++counter > COUNTER_MAX) {
        last_ms++;
        counter = random64() & COUNTER_START_MASK;
    }
    format_id(last_ms, counter, random64(), ret);
}

void sl_id_derive(const char *topic, int32_t partition, int64_t offset, int64_t timestamp_ms,
                  char ret[37])
{
    static const uint64_t keys[2][2] = {{0x736c756963652069u, 0x6420686967682030u},
                                        {0x736c756963652069u, 0x64206c6f77202030u}};
    struct {
        uint64_t partition, offset, timestamp;
    } numbers = {htole64((uint64_t)(int64_t)partition), htole64((uint64_t)offset),
                 htole64((uint64_t)timestamp_ms)};
    char bytes[sizeof(numbers) + 256];
    size_t len = strlen(topic);
    assert(len <= 249); /* Kafka's limit for a topic's name. */
    memcpy(bytes, &numbers, sizeof(numbers));
    memcpy(bytes + sizeof(numbers), topic, len);
    struct sl_span position = {bytes, sizeof(numbers) + len};
    format_id(timestamp_ms, sl_siphash(keys[0], position), sl_siphash(keys[1], position), ret);
}
