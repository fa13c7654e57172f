/* Scans the events of one answer from bytes cut anywhere: their types, and how many words the texts
 * of its deltas hold. Fixed memory; nothing is kept of the texts. */
#ifndef TESTS_BENCH_LOAD_SSE_H
#define TESTS_BENCH_LOAD_SSE_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum { LOAD_WORD_MAX = 8 };

enum load_ending { LOAD_OPEN, LOAD_DONE, LOAD_ERROR };

/* Where the scan stands in the JSON object of a delta. */
struct load_json {
    uint8_t state;
    uint8_t depth;
    uint8_t matched; /* Bytes of the key "text" so far. */
    uint8_t digits;  /* Left of a \u escape. */
    bool wants_key, is_text, has_text;
};

struct load_sse {
    /* Since the start, or since the caller set them to zero. */
    long tokens;    /* Words of the texts. */
    long events;    /* Deltas. */
    bool restarted; /* The text begins anew; tokens then counts from there. */

    enum load_ending ending; /* The event that says how the answer ended. */
    bool complete;           /* `data: [DONE]` came after it. */

    uint8_t state, field, type;
    bool has_data, has_mark, in_word;
    uint8_t word_len;
    char word[LOAD_WORD_MAX]; /* The name of a field, or the beginning of its value. */
    long new_tokens;          /* Of the event that is being read. */
    struct load_json json;
};

void load_sse_init(struct load_sse *sse);

/* 0, or -SL_EBADMSG: not the events that are allowed, in this order. Feed no more after that. */
int load_sse_feed(struct load_sse *sse, struct sl_span bytes) SL_CHECKED;

#endif
