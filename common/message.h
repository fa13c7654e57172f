/*
 * What travels on the topics. Each struct here is a MessagePack map with the key that its comment
 * names; jobs and documents are JSON too, where the record's content-type header says
 * application/json. One map version: key "v" = 1 (major); minor versions only add keys. codec.h
 * reads and writes them; docs/WIRE.md is the same for producers in other languages. Spans are UTF-8
 * and borrowed from the arena that a decode was given.
 */
#ifndef SLUICE_COMMON_MESSAGE_H
#define SLUICE_COMMON_MESSAGE_H

#include "common/buf.h"

#include <stdint.h>

enum {
    SL_MESSAGE_MAJOR = 1,
    SL_QUERY_MAX = 32768,
    SL_HISTORY_MAX = 64,
    SL_FILTER_MAX = 16,
    SL_STOP_MAX = 4,
    SL_TOP_N_MAX = 50
};

enum sl_mode { SL_MODE_ANSWER, SL_MODE_SEARCH };
enum sl_on_disconnect { SL_DISCONNECT_CANCEL, SL_DISCONNECT_GRACE, SL_DISCONNECT_CONTINUE };
enum sl_on_worker_lost { SL_WORKER_LOST_ERROR, SL_WORKER_LOST_RESTART };
enum { SL_DEGRADED_VECTOR = 1, SL_DEGRADED_KEYWORD = 2, SL_DEGRADED_RERANK = 4 };

/* The stages of a query, in order. */
#define SL_STAGES(X) X(embed) X(retrieve) X(rerank) X(generate)
enum sl_stage_index {
#define X(name) SL_STAGE_##name,
    SL_STAGES(X)
#undef X
        SL_STAGE_COUNT
};

struct sl_turn { /* "role": "user" | "assistant", "content" */
    bool assistant;
    struct sl_span content;
};

struct sl_pair {
    struct sl_span key, value;
};

struct sl_hit {
    struct sl_span doc_id;   /* "doc_id" */
    struct sl_span chunk_id; /* "chunk_id" */
    int64_t chunk_index;     /* "chunk_index" */
    struct sl_span text;     /* "text" */
    struct sl_span metadata; /* "metadata": a JSON object as text (a map in JSON); "" is {}. */
    double score;            /* "score": of the last stage that ranked it. */
    int64_t version; /* Of the document in its store, 0 where that has none; does not travel. */
};

/* Milliseconds, from the stage's own clock. All zero: the stage was not reached. */
struct sl_stage_time {
    bool reached;      /* Set by the worker that ran it: it may have taken no time and no call. */
    uint32_t queue_ms; /* "queue_ms": from the record's append to its take. */
    uint32_t wait_ms;  /* "wait_ms": for admission and permits. */
    uint32_t work_ms;  /* "work_ms" */
    uint32_t attempts; /* "attempts": upstream calls. */
};

struct sl_query {
    /* What the caller says (INTERFACES: a query). */
    struct sl_span query;      /* "query" */
    struct sl_span collection; /* "collection" */
    struct sl_turn *history;   /* "history" */
    size_t history_len;
    enum sl_mode mode;                   /* "mode" */
    uint32_t top_n;                      /* "top_n" */
    uint32_t timeout_ms;                 /* "timeout_ms" */
    uint32_t max_tokens;                 /* "max_tokens" */
    struct sl_span model;                /* "model"; empty: the first that is configured. */
    double temperature;                  /* "temperature" */
    enum sl_on_disconnect on_disconnect; /* "on_disconnect" */
    uint32_t grace_ms;
    enum sl_on_worker_lost on_worker_lost; /* "on_worker_lost" */
    struct sl_pair *filter;                /* "filter" */
    size_t filter_len;
    /* In MessagePack only; the gateway fills it from OpenAI's fields. */
    struct sl_span extra; /* "extra": a JSON object (text) whose members go to the
                           * model as they are: stop, seed, user ... */
    /* Routing: in Kafka headers, so that nobody has to decode the body for it. */
    struct sl_span id;          /* sluice-id */
    struct sl_span tenant;      /* sluice-tenant */
    struct sl_span key;         /* sluice-key, between stages: the result's; empty: the id. */
    int64_t deadline_ms;        /* sluice-deadline; 0: not set yet. */
    struct sl_span reply_topic; /* reply-to; empty: none. */
    int32_t reply_partition;    /* -1: by key. */
    bool reply_bundles;         /* reply-bundles: who reads there takes bundles (bundle.h). */
    struct sl_span traceparent; /* traceparent; passed on. */
    /* What the pipeline adds. */
    bool json;                   /* "json": the job was JSON, so are its results. */
    int64_t accepted_ms;         /* "accepted": the job's append time, Redis's clock. */
    struct sl_span source_topic; /* "source": [topic, partition, offset] of the job. */
    int32_t source_partition;
    int64_t source_offset;
    const float *vector; /* "vector": float32, little-endian bytes (bin). */
    size_t vector_len;
    struct sl_hit *hits; /* "hits", best first. */
    size_t hits_len;
    uint32_t degraded;    /* "degraded": bits. */
    int64_t retrieved_ms; /* "retrieved": when the reranked chunks were there. */
    struct sl_stage_time
        stages[SL_STAGE_COUNT]; /* "stages": array of [queue, wait, work, attempts] or null. */
    struct sl_span unknown;     /* Pairs (MessagePack) of keys that this version does not
                                 * know: passed on as they came. */
    uint32_t unknown_pairs;
};

enum sl_outcome { SL_DONE, SL_FAILED, SL_CANCELLED, SL_EXPIRED };
/* X(enum, text): the codes of INTERFACES. */
/* clang-format off */
#define SL_QUERY_ERRORS(X)                                                                         \
    X(NONE, "")                                                                                    \
    X(BAD_REQUEST, "bad_request")                                                                  \
    X(TIMEOUT, "timeout")                                                                          \
    X(CANCELLED, "cancelled")                                                                      \
    X(WORKER_LOST, "worker_lost")                                                                  \
    X(UPSTREAM_ERROR, "upstream_error")                                                            \
    X(RETRIEVAL_FAILED, "retrieval_failed")                                                        \
    X(OVERLOADED, "overloaded")                                                                    \
    X(INTERNAL, "internal")
/* clang-format on */
enum sl_query_error {
#define X(name, text) SL_QERR_##name,
    SL_QUERY_ERRORS(X)
#undef X
};

struct sl_usage {
    uint32_t prompt_tokens, completion_tokens;
    bool estimated;
};

/* How a query ended. What the result says besides comes from the query. */
struct sl_result {
    enum sl_outcome outcome;
    enum sl_query_error code; /* NONE when done. */
    struct sl_span message;   /* Of the error: one line for the caller. */
    struct sl_span stage;     /* Of the error. */
    struct sl_span answer;
    struct sl_span model;
    struct sl_span finish_reason; /* "stop", "length"; for the gateway's own formats. */
    struct sl_usage usage;
    uint32_t retrieval_latency_ms, generation_latency_ms, ttft_ms, total_ms;
};

/* A result as it is read from its topic: query has only what the result says of it. */
struct sl_ended {
    struct sl_query query; /* First: its parts are read as those of a query. */
    struct sl_result result;
};

enum sl_event_type {
    SL_EVENT_SOURCES,
    SL_EVENT_DELTA,
    SL_EVENT_RESTART,
    SL_EVENT_DONE,
    SL_EVENT_ERROR
};

/* One event of a query's stream, on its reply topic. */
struct sl_event {
    enum sl_event_type type; /* "type" */
    struct sl_span id;       /* "id": the query's. */
    uint32_t attempt;        /* "attempt": of generation; 0 before it. */
    uint32_t seq;            /* "seq": from 0 within an attempt. */
    uint64_t fence;          /* "fence" */
    struct sl_span text;     /* delta: "text" */
    const struct sl_query
        *query; /* sources: its hits as "source_chunks"; done and error: what the */
    const struct sl_result
        *result; /* result says, without texts. Decoded: both set for all but delta. */
};

/* A document on sluice.documents, JSON or MessagePack. */
struct sl_document {
    struct sl_span doc_id;     /* "doc_id": 1 .. 512 bytes. */
    struct sl_span text;       /* "text": up to 16 MiB. */
    struct sl_span metadata;   /* "metadata": JSON object (text). */
    struct sl_span collection; /* "collection" */
    struct sl_span tenant;     /* sluice-tenant */
    struct sl_span ingest_id;  /* "ingest_id": the run that it is counted in; empty: none. */
    bool remove;               /* "delete": it is to go; then it has no text. */
    bool again;                /* "again": it is stored anew also where nothing has changed. */
};

/* Some chunks of a document: on sluice.chunks without vectors, on sluice.vectors with them. */
struct sl_batch {
    struct sl_span doc_id, tenant, collection, ingest_id, metadata; /* As the document's. */
    int64_t version;       /* "version": of the document, a counter. */
    uint32_t total_chunks; /* "total": of the document. */
    uint32_t first;        /* "first": the index of texts[0] in the document. */
    struct sl_span *texts; /* "texts" */
    size_t len;
    /* Each of these has one for each text, or is NULL. */
    const struct sl_span *headings;  /* "headings": those above it, "A > B"; empty: none. NULL: of
                                      * no text. */
    const uint32_t *indexes;         /* "indexes": in the document. NULL: first, first + 1 ... */
    const struct sl_span *metadatas; /* Its own metadata; does not travel. NULL: the document's. */
    const float *vectors;   /* "vectors": len * dim float32, little-endian (bin); NULL: none. */
    uint32_t dim;           /* "dim" */
    struct sl_span failure; /* "failure": embedding failed for good; one line. Then no vectors. */
};

static inline uint32_t sl_batch_index(const struct sl_batch *batch, size_t i)
{
    return batch->indexes != NULL ? batch->indexes[i] : batch->first + (uint32_t)i;
}

static inline struct sl_span sl_batch_metadata(const struct sl_batch *batch, size_t i)
{
    return batch->metadatas != NULL ? batch->metadatas[i] : batch->metadata;
}

#endif
