/* What the files of the Redis store share: store_redis.c (calls, the link), store_redis_index.c
 * (the index), store_redis_terms.c (keys and tags), store_redis_search.c, store_redis_write.c. */
#ifndef SLUICE_COMMON_STORE_REDIS_INTERNAL_H
#define SLUICE_COMMON_STORE_REDIS_INTERNAL_H

#include "common/redis.h"
#include "common/store_backend.h"

enum { REDIS_NAME_MAX = 128, REDIS_DETAIL_MAX = 256, REDIS_ARGS_MAX = 264, REDIS_WINDOW = 32 };

enum redis_field {
    REDIS_FIELD_NONE,
    REDIS_FIELD_TAG,    /* A TAG */
    REDIS_FIELD_MISSING /* that also knows which records lack it. */
};

/* What FT.INFO says of an index. */
struct redis_index {
    bool exists;
    bool ours; /* It covers the keys that this store writes. */
    bool text, terms, vector, hnsw;
    bool building; /* Not all keys that were there before it are in it yet. */
    enum redis_field tenant, collection;
    uint32_t dim; /* Of its vectors; 0: it has none. */
};

struct redis_store {
    struct sl_store store;
    struct sl_store_env env;
    struct sl_redis *redis;
    char name[REDIS_NAME_MAX]; /* Of the index. */
    size_t limit;              /* Of the coord. */
    struct sl_histogram *seconds;
    size_t calls, writes; /* That have not ended. */
    enum { REDIS_LINK_NEW, REDIS_LINK_UP, REDIS_LINK_DOWN } link;
    char why[REDIS_DETAIL_MAX]; /* The link is down. */
    struct redis_index index;
    uint64_t looked_ms;     /* When FT.INFO answered; 0: not since the link came up. */
    bool asking;            /* FT.INFO or what makes the index is on its way. */
    long long version;      /* Of the search module, 21005 is 2.10.5; 0: not known. */
    struct sl_list waiting; /* Calls that need the index. */
};

struct redis_call {
    struct sl_store_call base;
    struct sl_list node;                    /* While it waits for the index. */
    struct sl_arena arena;                  /* The arguments. */
    void (*begin)(struct redis_call *call); /* The index is known. */
    void (*on_reply)(struct redis_call *call, int err, const struct redisReply *reply);
    struct sl_store_search search;
    struct sl_batch batch;
    int64_t version;
    bool below;
    unsigned tries;     /* At making what the index lacks. */
    size_t next;        /* Chunk to be sent; of a delete: keys to be passed over. */
    struct sl_span key; /* Of the document: what all its keys begin with. */
    /* How it ends. */
    int err;
    char detail[REDIS_DETAIL_MAX];
    bool late;   /* The timer tells. */
    bool ended;  /* It was told, or cancelled: what comes now is for nobody. */
    size_t sent; /* Commands whose replies have not come. */
    bool busy;   /* Inside on_reply. */
    sl_store_hits_cb *on_hits;
    sl_store_done_cb *on_done;
    void *ctx;
    struct sl_arena *out;
    int64_t deadline_ms;
    struct sl_permit own_permit;
    struct sl_permit *permit; /* NULL: a write. */
    struct sl_timer timer;    /* Time-out, or an end that must not come inside another call. */
    uint64_t began_us;
};

struct redis_args {
    struct sl_span argv[REDIS_ARGS_MAX];
    size_t len;
};

static inline struct redis_store *redis_store_of(const struct redis_call *call)
{
    return (struct redis_store *)call->base.store;
}

void redis_arg(struct redis_args *args, struct sl_span arg); /* Borrowed. */
/* The reply comes to on_reply, unless the call has ended by then. */
int redis_call_send(struct redis_call *call, const struct redis_args *args) SL_CHECKED;
/* From on_reply. hits: in the caller's arena. */
void redis_call_end(struct redis_call *call, int err, struct sl_hit *hits, size_t len,
                    const char *detail);
/* From anywhere. detail "": that of err. */
void redis_call_end_later(struct redis_call *call, int err, const char *detail);
/* The words of an error reply, one line; those of err when there is none. */
void redis_error_text(int err, const struct redisReply *reply, char *ret, size_t size);
/* Whether the reply says that there is no such index. */
bool redis_says_no_index(const struct redisReply *reply);
/* How long the call may go on, at least 1. */
long long redis_call_left_ms(const struct redis_call *call);

/* --- store_redis_index.c --- */

/* The call begins when the index is known and, for an upsert, has what it needs. */
void redis_index_await(struct redis_store *store, struct redis_call *call);
/* The link came up; or went down: those that wait fail. */
void redis_index_link(struct redis_store *store);
/* From the reply to FT.INFO, which is no error. */
void redis_index_read(const struct redisReply *reply, const char *name, struct redis_index *ret);

/* --- store_redis_terms.c: everything is appended --- */

/* The tag of a scope, of a document in it, of a pair of its metadata. */
void redis_put_scope_term(struct sl_buf *out, struct sl_span tenant, struct sl_span collection);
void redis_put_document_term(struct sl_buf *out, const struct sl_batch *document);
void redis_put_pair_term(struct sl_buf *out, struct sl_span key, struct sl_span value);
/* All tags of a chunk, comma separated. -SL_EINVAL: metadata is not a JSON object. */
int redis_put_terms(struct sl_buf *out, const struct sl_batch *batch,
                    struct sl_span metadata) SL_CHECKED;
/* What the keys of a document begin with: each is this, the version, ':' and the index. */
void redis_put_document_key(struct sl_buf *out, const char *name, const struct sl_batch *document);
bool redis_is_key_of(struct sl_span key, struct sl_span document_key);
/* Whether the metadata, JSON, has all pairs of the filter. */
bool redis_fits_filter(struct sl_span metadata, const struct sl_store_scope *scope);

/* --- how calls begin, the index being known --- */

void redis_begin_search(struct redis_call *call);
void redis_begin_upsert(struct redis_call *call);
void redis_begin_delete(struct redis_call *call);

#endif
