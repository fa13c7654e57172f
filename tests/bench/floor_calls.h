/*
 * The parts of bench_floor_calls: the five calls of a question, made directly with libcurl. Each
 * part is one file; the JSON is yyjson's.
 */
#ifndef TESTS_BENCH_FLOOR_CALLS_H
#define TESTS_BENCH_FLOOR_CALLS_H

#include "common/buf.h"
#include "tests/bench/measure_run.h"

#include <stdbool.h>
#include <stddef.h>

enum calls_kind { CALLS_EMBED, CALLS_VECTOR, CALLS_KEYWORD, CALLS_RERANK, CALLS_CHAT, CALLS_KINDS };

enum { CALLS_PASSAGES = 20, CALLS_SOURCES = 5 };

/* --- floor_calls_json.c --- */

struct yyjson_doc;

/* The passages that both searches found, fused, best first. Texts are borrowed from the two
 * documents. All zero is an empty one. */
struct calls_passages {
    struct yyjson_doc *documents[2];
    struct sl_span ids[CALLS_PASSAGES * 2], texts[CALLS_PASSAGES * 2];
    double scores[CALLS_PASSAGES * 2];
    size_t len;
};

/* Request bodies. What they need of the answers before is taken from their JSON; false when it is
 * not there. Errors of memory stay in the buf. */
void calls_write_embed(struct sl_buf *out, struct sl_span question);
bool calls_write_vector(struct sl_buf *out, struct sl_span embed_answer);
void calls_write_keyword(struct sl_buf *out, struct sl_span question);
bool calls_write_rerank(struct sl_buf *out, struct sl_span question, struct sl_span vector_answer,
                        struct sl_span keyword_answer, struct calls_passages *passages);
bool calls_write_chat(struct sl_buf *out, struct sl_span question,
                      const struct calls_passages *passages, struct sl_span rerank_answer);
void calls_passages_clear(struct calls_passages *passages);
/* The words of a chat chunk's text, which may be none; -1 when it is not a chunk. */
long calls_count_tokens(struct sl_span chunk);

/* --- floor_calls_stream.c --- */

/* The chat's answer as it comes. All zero, but for the buf's limit, is the beginning. */
struct calls_stream {
    struct sl_buf line; /* One that has not ended yet. */
    bool done;          /* [DONE] has come. */
};

/* Reads some bytes; adds up tokens and the events that brought some. False: not such a stream. */
bool calls_stream_read(struct calls_stream *stream, struct sl_span bytes, long *tokens,
                       long *events);

/* --- floor_calls_client.c --- */

struct calls_client;

/* NULL after a line on standard error. options is borrowed. SIGTERM and SIGINT are blocked. */
struct calls_client *calls_client_create(const struct measure_options *options);
/* Asks until the run is over or a signal comes. 0, or -SL_E* after a line on standard error. */
int calls_client_run(struct calls_client *client, struct measure_run *run) SL_CHECKED;
void calls_client_destroy(struct calls_client *client); /* Takes NULL. */

#endif
