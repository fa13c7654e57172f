/*
 * Reading and writing the messages of message.h. Reading checks a MessagePack value's lengths and
 * depth against the bytes at hand before anything is reserved for it (5 bytes can claim 8 GiB), and
 * never trusts a type. Everything decoded lives in the arena; the input may go.
 */
#ifndef SLUICE_COMMON_CODEC_H
#define SLUICE_COMMON_CODEC_H

#include "common/arena.h"
#include "common/message.h"

struct sl_json_doc;

/* What was wrong, for the sender. */
struct sl_fault {
    char message[256]; /* "top_n must be a whole number from 1 to 50, not \"x\"" */
    char param[64];    /* The field, "top_n"; empty when it is the whole. */
};

/* 0, or -SL_EBADMSG: not one whole MessagePack value, nested deeper than 32, or lengths that the
 * bytes do not hold. */
int sl_msgpack_check(struct sl_span bytes) SL_CHECKED;

/* A query as callers send it. 0; -SL_EBADMSG: the bytes are no JSON or MessagePack map (a dead
 * letter on Kafka, 400 over HTTP); -SL_EINVAL: decodable but not valid (unknown field, wrong type
 * or range: the query's bad_request; what could be read is set, so that a result can be written);
 * -SL_EVERSION; -SL_ENOMEM. Sets defaults; the routing members stay as they are (zero them). */
int sl_query_decode(struct sl_span bytes, bool json, struct sl_arena *arena, struct sl_query *query,
                    struct sl_fault *fault) SL_CHECKED;
/* A query between stages: MessagePack, unknown keys kept, routing members as above. -SL_EBADMSG,
 * -SL_EVERSION, -SL_ENOMEM. */
int sl_query_decode_internal(struct sl_span bytes, struct sl_arena *arena, struct sl_query *query,
                             struct sl_fault *fault) SL_CHECKED;
/* A query that no stage has had yet becomes a job, as sl_query_decode reads it. */
void sl_query_encode(const struct sl_query *query, struct sl_buf *out);

/* The result record (INTERFACES: a result). */
void sl_result_encode(const struct sl_query *query, const struct sl_result *result, bool json,
                      struct sl_buf *out);
/* A result record. -SL_EBADMSG or -SL_EINVAL (a dead letter both), -SL_EVERSION, -SL_ENOMEM; ended
 * is untouched then. Unknown members are left out, absent ones are zero. */
int sl_result_decode(struct sl_span bytes, bool json, struct sl_arena *arena,
                     struct sl_ended *ended, struct sl_fault *fault) SL_CHECKED;
void sl_event_encode(const struct sl_event *event, bool json, struct sl_buf *out);
/* MessagePack only. event->query and result point into the arena. -SL_EBADMSG, -SL_EVERSION,
 * -SL_ENOMEM. */
int sl_event_decode(struct sl_span bytes, struct sl_arena *arena,
                    struct sl_event *event) SL_CHECKED;
/* An event as callers see it over SSE: one line of JSON, without the fence. */
void sl_event_json(const struct sl_event *event, struct sl_buf *out);
/* `[{"n": 1, "doc_id": ...}]` */
void sl_sources_json(const struct sl_query *query, struct sl_buf *out);

/* -SL_EBADMSG or -SL_EINVAL (a dead letter both), -SL_EVERSION, -SL_ENOMEM. Sets defaults; the
 * document's tenant stays as it is (zero it). */
int sl_document_decode(struct sl_span bytes, bool json, struct sl_arena *arena,
                       struct sl_document *document, struct sl_fault *fault) SL_CHECKED;
/* What a caller may send as documents: JSON, one {"doc_id", "text", "metadata", "collection"} or
 * {"documents": [at least one, at most max]}. 0; -SL_EBADMSG, -SL_EINVAL; -SL_ETOOBIG: a text of
 * more than 16 MiB, or too many; -SL_ENOMEM. Texts are borrowed from *doc, the rest lies in the
 * arena. *doc is to be freed, whatever came back; it may be NULL. */
int sl_documents_decode(struct sl_span bytes, size_t max, struct sl_arena *arena,
                        struct sl_json_doc **doc, struct sl_document **documents, size_t *len,
                        struct sl_fault *fault) SL_CHECKED;
void sl_document_encode(const struct sl_document *document, struct sl_buf *out); /* MessagePack. */
/* -SL_EBADMSG, -SL_EVERSION, -SL_ENOMEM. */
int sl_batch_decode(struct sl_span bytes, struct sl_arena *arena, struct sl_batch *batch,
                    struct sl_fault *fault) SL_CHECKED;
void sl_batch_encode(const struct sl_batch *batch, struct sl_buf *out);

const char *sl_outcome_text(enum sl_outcome outcome);
const char *sl_query_error_text(enum sl_query_error code);
const char *sl_event_type_text(enum sl_event_type type);

/* A producer's own id: 1-64 characters of [A-Za-z0-9._-]. */
bool sl_id_valid(struct sl_span id);
/* UUIDv7 (RFC 9562), 36 characters and a zero; unix_ms is its time. Ordered within a process while
 * the clock does not step back by more than 10 s. On one thread only. */
void sl_id_new(int64_t unix_ms, char ret[37]);
/* The id of a job that came without one: the same for each delivery of the same record. */
void sl_id_derive(const char *topic, int32_t partition, int64_t offset, int64_t timestamp_ms,
                  char ret[37]);

#endif
