/*
 * The index of a Redis store: whether it is there, what fields it has, and how it comes about.
 *
 * Calls wait in a list until FT.INFO has answered on this link. One that is there serves on for
 * LOOK_MS; one that is not, or is being built over keys that were there before it, is asked for
 * again by each call. Searches and deletes take it as it is. An upsert needs it to hold its
 * vectors: the index is created by the first one that comes, with the number of dimensions of its
 * vectors or of the model; one that lacks a field (words came before vectors did) gets it
 * (FT.ALTER). When another writer was faster, Redis says that it exists already, and a further look
 * tells whether it is what is needed.
 *
 * What can go wrong: an index of somebody else under this name, over other keys (the upsert is
 * refused), vectors of another length in it (refused), a server without the Query Engine (its words
 * end the call).
 */
#include "common/clock.h"
#include "common/store_redis_internal.h"

#include <assert.h>
#include <stdio.h>

enum { LOOK_MS = 10000, TRIES_MAX = 4 };

/* Graph degree and candidates of HNSW: docs/STORES.md has what they were chosen by. */
#define HNSW_M "32"
#define HNSW_EF_CONSTRUCTION "200"

static void look(struct redis_store *store);

/* --- reading FT.INFO --- */

/* The value behind a key, in an array of both by turns. */
static const struct redisReply *member(const struct redisReply *array, const char *key)
{
    for (size_t i = 0; i + 1 < sl_reply_len(array); i += 2) {
        if (sl_span_is(sl_reply_span(sl_reply_at(array, i)), key)) {
            return sl_reply_at(array, i + 1);
        }
    }
    return NULL;
}

static bool contains(const struct redisReply *array, struct sl_span text)
{
    for (size_t i = 0; i < sl_reply_len(array); i++) {
        if (sl_span_equal(sl_reply_span(sl_reply_at(array, i)), text)) {
            return true;
        }
    }
    return false;
}

static void read_field(const struct redisReply *field, struct redis_index *ret)
{
    struct sl_span name = sl_reply_span(member(field, "attribute"));
    struct sl_span type = sl_reply_span(member(field, "type"));
    enum redis_field tag = !sl_span_is(type, "TAG")                   ? REDIS_FIELD_NONE
                           : contains(field, SL_SPAN("INDEXMISSING")) ? REDIS_FIELD_MISSING
                                                                      : REDIS_FIELD_TAG;
    if (sl_span_is(name, "tenant")) {
        ret->tenant = tag;
    } else if (sl_span_is(name, "collection")) {
        ret->collection = tag;
    } else if (sl_span_is(name, "terms")) {
        ret->terms = tag == REDIS_FIELD_MISSING;
    } else if (sl_span_is(name, "text")) {
        ret->text = sl_span_is(type, "TEXT");
    } else if (sl_span_is(name, "embedding") && sl_span_is(type, "VECTOR")) {
        long long dim = sl_reply_int(member(field, "dim"));
        ret->vector = dim > 0 && dim <= UINT32_MAX;
        ret->dim = ret->vector ? (uint32_t)dim : 0;
        ret->hnsw = sl_span_is(sl_reply_span(member(field, "algorithm")), "HNSW");
    }
}

void redis_index_read(const struct redisReply *reply, const char *name, struct redis_index *ret)
{
    char prefix[REDIS_NAME_MAX + 1];
    const struct redisReply *fields = member(reply, "attributes");
    const struct redisReply *prefixes = member(member(reply, "index_definition"), "prefixes");
    snprintf(prefix, sizeof(prefix), "%s:", name);
    *ret = (struct redis_index){
        .exists = true,
        .ours = contains(prefixes, sl_span_of(prefix)) || contains(prefixes, SL_SPAN("")),
        .building = sl_reply_int(member(reply, "indexing")) == 1,
    };
    for (size_t i = 0; i < sl_reply_len(fields); i++) {
        read_field(sl_reply_at(fields, i), ret);
    }
}

/* --- making it --- */

/* What is told goes before what comes: a batch of other vectors is refused then. */
static uint32_t dim_of(const struct redis_call *call)
{
    long long told = redis_store_of(call)->env.dim;
    uint32_t came = call->batch.vectors != NULL ? call->batch.dim : 0;
    return told != 0 ? (uint32_t)told : came;
}

static bool is_upsert(const struct redis_call *call)
{
    return call->begin == redis_begin_upsert;
}

/* Whether something can and must be made before the call begins. */
static bool lacks(const struct redis_store *store, const struct redis_call *call)
{
    const struct redis_index *index = &store->index;
    if (!is_upsert(call) || (index->exists && !index->ours)) {
        return false;
    }
    return !index->exists || !index->terms || !index->text || (!index->vector && dim_of(call) != 0);
}

static void put_tag(struct redis_args *args, const char *name)
{
    redis_arg(args, sl_span_of(name));
    redis_arg(args, SL_SPAN("TAG"));
    redis_arg(args, SL_SPAN("CASESENSITIVE"));
    redis_arg(args, SL_SPAN("INDEXMISSING"));
}

static void put_vector(struct redis_args *args, struct sl_span dim)
{
    static const char *const words[] = {"embedding",
                                        "VECTOR",
                                        "HNSW",
                                        "10",
                                        "TYPE",
                                        "FLOAT32",
                                        "DISTANCE_METRIC",
                                        "COSINE",
                                        "M",
                                        HNSW_M,
                                        "EF_CONSTRUCTION",
                                        HNSW_EF_CONSTRUCTION,
                                        "DIM"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        redis_arg(args, sl_span_of(words[i]));
    }
    redis_arg(args, dim);
}

static void put_create(struct redis_args *args, struct sl_span name, struct sl_span prefix)
{
    const struct sl_span words[] = {
        SL_SPAN("FT.CREATE"), name,         SL_SPAN("ON"), SL_SPAN("HASH"),
        SL_SPAN("PREFIX"),    SL_SPAN("1"), prefix,        SL_SPAN("SCHEMA")};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        redis_arg(args, words[i]);
    }
    put_tag(args, "terms");
    put_tag(args, "tenant");
    put_tag(args, "collection");
    put_tag(args, "doc_id");
    static const char *const fields[][2] = {
        {"version", "NUMERIC"}, {"chunk_index", "NUMERIC"}, {"text", "TEXT"}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        redis_arg(args, sl_span_of(fields[i][0]));
        redis_arg(args, sl_span_of(fields[i][1]));
    }
}

/* What an index of ours lacks, one field at a time. */
static void put_alter(struct redis_args *args, struct sl_span name, const struct redis_index *index,
                      struct sl_span dim)
{
    const struct sl_span words[] = {SL_SPAN("FT.ALTER"), name, SL_SPAN("SCHEMA"), SL_SPAN("ADD")};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        redis_arg(args, words[i]);
    }
    if (!index->terms) {
        put_tag(args, "terms");
    } else if (!index->text) {
        redis_arg(args, SL_SPAN("text"));
        redis_arg(args, SL_SPAN("TEXT"));
    } else {
        put_vector(args, dim);
    }
}

static void fail_waiting(struct redis_store *store, int err, const char *detail)
{
    struct sl_list *node;
    while ((node = sl_list_first(&store->waiting)) != NULL) {
        sl_list_remove(node);
        redis_call_end_later(SL_ITEM(node, struct redis_call, node), err, detail);
    }
}

static bool exists_already(const struct redisReply *reply)
{
    struct sl_span text = sl_reply_span(reply);
    return sl_reply_type(reply) == SL_REPLY_ERROR &&
           (memmem(text.data, text.len, "already exists", 14) != NULL ||
            memmem(text.data, text.len, "Duplicate field", 15) != NULL);
}

static void on_made(void *ctx, int err, const struct redisReply *reply)
{
    struct redis_store *store = ctx;
    char detail[REDIS_DETAIL_MAX];
    store->asking = false;
    if (err == 0 || exists_already(reply)) {
        look(store);
        return;
    }
    redis_error_text(err, reply, detail, sizeof(detail));
    fail_waiting(store, err, detail);
}

static void make(struct redis_store *store, const struct redis_call *call)
{
    struct redis_args args = {.len = 0};
    struct sl_span name = sl_span_of(store->name);
    char prefix[REDIS_NAME_MAX + 1], dim[16];
    snprintf(prefix, sizeof(prefix), "%s:", store->name);
    snprintf(dim, sizeof(dim), "%u", dim_of(call));
    if (!store->index.exists) {
        put_create(&args, name, sl_span_of(prefix));
        if (dim_of(call) != 0) {
            put_vector(&args, sl_span_of(dim));
        }
    } else {
        put_alter(&args, name, &store->index, sl_span_of(dim));
    }
    int rv = sl_redis_try(store->redis, args.len, args.argv, on_made, store);
    store->asking = rv == 0;
    if (rv != 0) {
        fail_waiting(store, rv, "");
    }
}

/* --- looking at it --- */

/* Begins what can begin. What is left waits for the index to be made. */
static void serve(struct redis_store *store)
{
    struct sl_list kept;
    struct sl_list *node;
    sl_list_init(&kept);
    while ((node = sl_list_first(&store->waiting)) != NULL) {
        struct redis_call *call = SL_ITEM(node, struct redis_call, node);
        sl_list_remove(node);
        if (!lacks(store, call)) {
            call->begin(call);
        } else if (++call->tries > TRIES_MAX) {
            redis_call_end_later(call, -SL_EUPSTREAM, "the index cannot be made");
        } else {
            sl_list_push(&kept, node);
        }
    }
    while ((node = sl_list_first(&kept)) != NULL) {
        sl_list_remove(node);
        sl_list_push(&store->waiting, node);
    }
    node = sl_list_first(&store->waiting);
    if (node != NULL) {
        make(store, SL_ITEM(node, struct redis_call, node));
    }
}

static void on_info(void *ctx, int err, const struct redisReply *reply)
{
    struct redis_store *store = ctx;
    char detail[REDIS_DETAIL_MAX];
    store->asking = false;
    if (err != 0 && !redis_says_no_index(reply)) {
        redis_error_text(err, reply, detail, sizeof(detail));
        fail_waiting(store, err, detail);
        return;
    }
    store->index = (struct redis_index){.exists = false};
    if (err == 0) {
        redis_index_read(reply, store->name, &store->index);
    }
    store->store.dim = store->index.dim;
    bool stays = store->index.exists && !store->index.building;
    store->looked_ms = stays ? sl_clock_now_ms() : 0;
    serve(store);
}

/* [[name, search, ver, 21005, ...], ...]. Where users may not ask, the oldest is assumed. */
static void on_modules(void *ctx, int err, const struct redisReply *reply)
{
    struct redis_store *store = ctx;
    for (size_t i = 0; err == 0 && i < sl_reply_len(reply); i++) {
        const struct redisReply *module = sl_reply_at(reply, i);
        if (sl_span_is(sl_reply_span(member(module, "name")), "search")) {
            store->version = sl_reply_int(member(module, "ver"));
        }
    }
}

static void look(struct redis_store *store)
{
    const struct sl_span modules[] = {SL_SPAN("MODULE"), SL_SPAN("LIST")};
    const struct sl_span info[] = {SL_SPAN("FT.INFO"), sl_span_of(store->name)};
    int rv = 0;
    assert(!store->asking);
    if (store->version == 0) {
        rv = sl_redis_try(store->redis, 2, modules, on_modules, store);
    }
    rv = rv != 0 ? rv : sl_redis_try(store->redis, 2, info, on_info, store);
    store->asking = rv == 0;
    if (rv != 0) {
        fail_waiting(store, rv, "");
    }
}

static bool is_known(const struct redis_store *store)
{
    return store->looked_ms != 0 && sl_clock_now_ms() - store->looked_ms < LOOK_MS;
}

void redis_index_await(struct redis_store *store, struct redis_call *call)
{
    if (store->link == REDIS_LINK_DOWN) {
        redis_call_end_later(call, -SL_ECONN, store->why);
        return;
    }
    if (store->link == REDIS_LINK_UP && !store->asking && is_known(store) && !lacks(store, call)) {
        call->begin(call);
        return;
    }
    sl_list_push(&store->waiting, &call->node);
    if (store->link == REDIS_LINK_UP && !store->asking) {
        look(store);
    }
}

void redis_index_link(struct redis_store *store)
{
    store->looked_ms = 0;
    if (store->link == REDIS_LINK_DOWN) {
        store->version = 0;
        fail_waiting(store, -SL_ECONN, store->why);
    } else if (!sl_list_empty(&store->waiting) && !store->asking) {
        look(store);
    }
}
