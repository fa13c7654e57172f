/*
 * Searching in the Redis store: one FT.SEARCH, a filter and behind it the nearest vectors or the
 * best words.
 *
 * The filter, with terms (store_redis_terms.c) as this store writes them, and plain fields for
 * records that other programs wrote, which have no terms:
 *
 *   ((@terms:{s..} @terms:{m..}) | (ismissing(@terms) @tenant:{$tenant} @collection:{$collection}))
 *
 * An index of somebody else has no terms at all: then only the second half is said, as far as its
 * fields go, and pairs of metadata are looked for among FOREIGN_MORE times as many hits. Each hit
 * is checked once more by its fields, in every case.
 *
 * Words come from the question as runs of letters and digits (fts_query.h), so that nothing in it
 * can act as an operator. Those that Redis does not index are left out: a query of nothing else
 * would match everything. BM25STD goes wrong before 2.10.25 of the module once documents were
 * written again (its number of documents with a word outgrows that of documents), so that older
 * ones rank by BM25.
 *
 * What can go wrong: vectors of another length (refused), a field that the index lacks (no hits for
 * a vector, Redis's words for the rest).
 */
#include "common/fts_query.h"
#include "common/store_redis_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUERY_MAX = 1 << 20, HITS_MAX = 10000, FOREIGN_MORE = 10, BM25STD_FROM = 21025 };
/* Candidates of a vector search at least, chosen as docs/STORES.md says, and for each hit. */
enum { EF_RUNTIME = 300, EF_PER_HIT = 2 };
#define DISTANCE "vector_distance"

/* --- the question --- */

static bool is_stopword(struct sl_span word)
{
    static const char *const stopwords[] = {
        "a",    "is",    "the",  "an",    "and",   "are",  "as",   "at", "be",  "but",  "by",
        "for",  "if",    "in",   "into",  "it",    "no",   "not",  "of", "on",  "or",   "such",
        "that", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with"};
    for (size_t i = 0; i < sizeof(stopwords) / sizeof(stopwords[0]); i++) {
        if (sl_span_equal_nocase(word, sl_span_of(stopwords[i]))) {
            return true;
        }
    }
    return false;
}

/* "@text:(lease|permit)"; how many words that is. An underscore is part of a word to Redis. */
static size_t put_words(struct sl_buf *query, struct sl_span text)
{
    struct sl_span words[SL_FTS_WORDS_MAX];
    size_t len = sl_fts_words(text, "_", words);
    size_t count = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_stopword(words[i])) {
            sl_buf_append_text(query, count++ == 0 ? " @text:(" : "|");
            sl_buf_append_span(query, words[i]);
        }
    }
    sl_buf_append_text(query, count > 0 ? ")" : "");
    return count;
}

/* One plain field; the records that lack it are of the default scope. False: nothing can match. */
static bool put_plain(struct sl_buf *query, enum redis_field field, const char *name,
                      struct sl_span wanted)
{
    bool is_default = sl_span_is(wanted, "default");
    if (field == REDIS_FIELD_NONE) {
        return is_default;
    }
    if (!is_default) {
        sl_buf_printf(query, " @%s:{$%s}", name, name);
    } else if (field == REDIS_FIELD_MISSING) {
        sl_buf_printf(query, " (@%s:{$%s}|ismissing(@%s))", name, name, name);
    } else {
        sl_buf_printf(query, " (@%s:{$%s}|-@%s:{w'*'})", name, name, name);
    }
    return true;
}

static bool put_plain_scope(struct sl_buf *query, const struct redis_index *index,
                            const struct sl_store_scope *scope)
{
    return put_plain(query, index->tenant, "tenant", scope->tenant) &&
           put_plain(query, index->collection, "collection", scope->collection);
}

static void put_terms(struct sl_buf *query, const struct sl_store_scope *scope)
{
    sl_buf_append_text(query, "(@terms:{");
    redis_put_scope_term(query, scope->tenant, scope->collection);
    sl_buf_append_text(query, "}");
    for (size_t i = 0; i < scope->filter_len; i++) {
        sl_buf_append_text(query, " @terms:{");
        redis_put_pair_term(query, scope->filter[i].key, scope->filter[i].value);
        sl_buf_append_text(query, "}");
    }
    sl_buf_append_text(query, ")");
}

/* The filter, in parentheses; everything, where an index knows no scopes. False: nothing can match.
 */
static bool put_filter(struct sl_buf *query, const struct redis_index *index,
                       const struct sl_store_search *search)
{
    const struct sl_store_scope *scope = &search->scope;
    struct sl_buf plain;
    sl_buf_init(&plain, QUERY_MAX);
    bool some = put_plain_scope(&plain, index, scope);
    if (some && plain.len == 0 && !index->terms) {
        sl_buf_append_text(query, search->vector != NULL ? "*" : ""); /* Words stand alone. */
        sl_buf_fini(&plain);
        return true;
    }
    sl_buf_append_text(query, "(");
    if (index->terms) {
        put_terms(query, scope);
    }
    if (index->terms && some) {
        sl_buf_append_text(query, " | (ismissing(@terms)");
        sl_buf_append_span(query, sl_buf_span(&plain));
        sl_buf_append_text(query, ")");
    } else if (some) {
        sl_buf_append_span(query, sl_buf_span(&plain));
    }
    sl_buf_append_text(query, ")");
    sl_buf_fini(&plain);
    return some || index->terms;
}

static uint32_t hits_wanted(const struct redis_call *call)
{
    const struct redis_index *index = &redis_store_of(call)->index;
    uint32_t more = !index->terms && call->search.scope.filter_len > 0 ? FOREIGN_MORE : 1;
    uint32_t top_k = call->search.top_k < HITS_MAX ? call->search.top_k : HITS_MAX;
    return top_k < HITS_MAX / more ? top_k * more : HITS_MAX;
}

/* The whole query. False: nothing can match. */
static bool put_query(struct sl_buf *query, const struct redis_call *call, uint32_t k)
{
    const struct redis_index *index = &redis_store_of(call)->index;
    const struct sl_store_search *search = &call->search;
    if (!put_filter(query, index, search)) {
        return false;
    }
    if (search->vector == NULL) {
        return put_words(query, search->text) > 0;
    }
    sl_buf_printf(query, "=>[KNN %u @embedding $vector", k);
    if (index->hnsw) {
        uint32_t ef = k * EF_PER_HIT > EF_RUNTIME ? k * EF_PER_HIT : EF_RUNTIME;
        sl_buf_printf(query, " EF_RUNTIME %u", ef);
    }
    sl_buf_append_text(query, " AS " DISTANCE "]");
    return true;
}

/* --- the answer --- */

static struct sl_span field_of(const struct redisReply *fields, const char *name)
{
    for (size_t i = 0; i + 1 < sl_reply_len(fields); i += 2) {
        if (sl_span_is(sl_reply_span(sl_reply_at(fields, i)), name)) {
            return sl_reply_span(sl_reply_at(fields, i + 1));
        }
    }
    return (struct sl_span){NULL, 0};
}

/* A record without the field is of the scope "default". */
static bool in_scope(struct sl_span field, struct sl_span wanted)
{
    return field.data == NULL ? sl_span_is(wanted, "default") : sl_span_equal(field, wanted);
}

static double number_of(struct sl_span text)
{
    char digits[64];
    snprintf(digits, sizeof(digits), SL_SPAN_FMT, SL_SPAN_ARG(text));
    return strtod(digits, NULL);
}

static int64_t whole_number_of(struct sl_span text)
{
    long long value = 0;
    return sl_span_to_int(text, INT64_MIN, INT64_MAX, &value) == 0 ? value : 0;
}

static int read_hit(struct sl_arena *arena, struct sl_span id, const struct redisReply *fields,
                    struct sl_hit *hit)
{
    struct sl_span doc_id = field_of(fields, "doc_id");
    struct sl_span chunk_id = field_of(fields, "chunk_id");
    hit->chunk_index = whole_number_of(field_of(fields, "chunk_index"));
    hit->version = whole_number_of(field_of(fields, "version"));
    hit->doc_id = sl_arena_copy(arena, doc_id.data != NULL ? doc_id : id);
    hit->text = sl_arena_copy(arena, field_of(fields, "text"));
    hit->metadata = sl_arena_copy(arena, field_of(fields, "metadata"));
    hit->chunk_id =
        chunk_id.data != NULL
            ? sl_arena_copy(arena, chunk_id)
            : sl_span_of(sl_arena_printf(arena, SL_SPAN_FMT "_%lld", SL_SPAN_ARG(hit->doc_id),
                                         (long long)hit->chunk_index));
    bool whole = hit->doc_id.data != NULL && hit->text.data != NULL && hit->metadata.data != NULL &&
                 hit->chunk_id.data != NULL;
    return whole ? 0 : -SL_ENOMEM;
}

static bool fits(const struct sl_store_scope *scope, const struct redisReply *fields)
{
    return in_scope(field_of(fields, "tenant"), scope->tenant) &&
           in_scope(field_of(fields, "collection"), scope->collection) &&
           redis_fits_filter(field_of(fields, "metadata"), scope);
}

/* [count, id, fields, id, fields ...], with the score behind the id where words were asked for. */
static int read_hits(const struct redis_call *call, const struct redisReply *reply,
                     struct sl_hit *hits, size_t *len)
{
    const struct sl_store_search *search = &call->search;
    size_t step = search->vector != NULL ? 2 : 3;
    for (size_t i = 1; i + step <= sl_reply_len(reply) && *len < search->top_k; i += step) {
        const struct redisReply *fields = sl_reply_at(reply, i + step - 1);
        if (sl_reply_type(fields) != SL_REPLY_ARRAY || !fits(&search->scope, fields)) {
            continue; /* Deleted a moment ago, or of somebody else. */
        }
        struct sl_hit *hit = &hits[*len];
        int rv = read_hit(call->out, sl_reply_span(sl_reply_at(reply, i)), fields, hit);
        if (rv != 0) {
            return rv;
        }
        hit->score = search->vector != NULL ? 1 - number_of(field_of(fields, DISTANCE))
                                            : number_of(sl_reply_span(sl_reply_at(reply, i + 1)));
        (*len)++;
    }
    return 0;
}

static void on_hits(struct redis_call *call, int err, const struct redisReply *reply)
{
    char detail[REDIS_DETAIL_MAX];
    size_t len = 0;
    if (redis_says_no_index(reply)) { /* It went away a moment ago. */
        redis_store_of(call)->looked_ms = 0;
        redis_call_end(call, 0, NULL, 0, "");
        return;
    }
    if (err != 0) {
        redis_error_text(err, reply, detail, sizeof(detail));
        redis_call_end(call, err, NULL, 0, detail);
        return;
    }
    if (sl_reply_type(sl_reply_at(reply, 0)) != SL_REPLY_INT) {
        redis_call_end(call, -SL_EPROTO, NULL, 0, "FT.SEARCH answered something else than hits");
        return;
    }
    struct sl_hit *hits = sl_arena_alloc(call->out, (sl_reply_len(reply) + 1) * sizeof(*hits));
    err = hits != NULL ? read_hits(call, reply, hits, &len) : -SL_ENOMEM;
    redis_call_end(call, err, err == 0 ? hits : NULL, err == 0 ? len : 0, sl_error_text(err));
}

/* --- the command --- */

static const char *scorer_of(const struct redis_store *store)
{
    return store->version >= BM25STD_FROM ? "BM25STD" : "BM25";
}

static void put_options(struct redis_args *args, const struct redis_call *call)
{
    const struct sl_store_search *search = &call->search;
    static const char *const returned[] = {"tenant", "collection",  "doc_id",   "chunk_id",
                                           "text",   "chunk_index", "metadata", "version"};
    enum { RETURNED = sizeof(returned) / sizeof(returned[0]) };
    if (search->vector != NULL) {
        redis_arg(args, SL_SPAN("SORTBY"));
        redis_arg(args, SL_SPAN(DISTANCE));
    } else {
        redis_arg(args, SL_SPAN("WITHSCORES"));
        redis_arg(args, SL_SPAN("SCORER"));
        redis_arg(args, sl_span_of(scorer_of(redis_store_of(call))));
    }
    redis_arg(args, SL_SPAN("RETURN"));
    redis_arg(args, search->vector != NULL ? SL_SPAN("9") : SL_SPAN("8"));
    _Static_assert(RETURNED == 8, "as RETURN says");
    for (size_t i = 0; i < RETURNED; i++) {
        redis_arg(args, sl_span_of(returned[i]));
    }
    if (search->vector != NULL) {
        redis_arg(args, SL_SPAN(DISTANCE));
    }
}

static int send_search(struct redis_call *call, struct sl_span query, uint32_t k)
{
    const struct sl_store_search *search = &call->search;
    struct redis_args args = {.len = 0};
    char limit[16], timeout[24];
    snprintf(limit, sizeof(limit), "%u", k);
    snprintf(timeout, sizeof(timeout), "%lld", redis_call_left_ms(call));
    const struct sl_span begin[] = {SL_SPAN("FT.SEARCH"),
                                    sl_span_of(redis_store_of(call)->name),
                                    query,
                                    SL_SPAN("PARAMS"),
                                    search->vector != NULL ? SL_SPAN("6") : SL_SPAN("4"),
                                    SL_SPAN("tenant"),
                                    search->scope.tenant,
                                    SL_SPAN("collection"),
                                    search->scope.collection};
    for (size_t i = 0; i < sizeof(begin) / sizeof(begin[0]); i++) {
        redis_arg(&args, begin[i]);
    }
    if (search->vector != NULL) {
        redis_arg(&args, SL_SPAN("vector"));
        redis_arg(&args, (struct sl_span){(const char *)search->vector,
                                          search->dim * sizeof(*search->vector)});
    }
    put_options(&args, call);
    const struct sl_span end[] = {SL_SPAN("LIMIT"),   SL_SPAN("0"),        sl_span_of(limit),
                                  SL_SPAN("TIMEOUT"), sl_span_of(timeout), SL_SPAN("DIALECT"),
                                  SL_SPAN("2")};
    for (size_t i = 0; i < sizeof(end) / sizeof(end[0]); i++) {
        redis_arg(&args, end[i]);
    }
    return redis_call_send(call, &args);
}

static int check(const struct redis_call *call, char *why, size_t why_size)
{
    const struct sl_store_search *search = &call->search;
    if (search->vector != NULL && !sl_store_has_direction(search->vector, search->dim)) {
        snprintf(why, why_size, "the query's vector is zero or not finite");
        return -SL_EINVAL;
    }
    return search->vector == NULL ? 0
                                  : sl_store_check_dim(&redis_store_of(call)->store,
                                                       (long long)search->dim, why, why_size);
}

void redis_begin_search(struct redis_call *call)
{
    const struct redis_index *index = &redis_store_of(call)->index;
    uint32_t k = hits_wanted(call);
    char why[REDIS_DETAIL_MAX] = "";
    struct sl_buf query;
    int rv = check(call, why, sizeof(why));
    bool possible = index->exists && k > 0 && (call->search.vector == NULL || index->vector);
    if (rv != 0 || !possible) {
        redis_call_end_later(call, rv, why);
        return;
    }
    sl_buf_init(&query, QUERY_MAX);
    possible = put_query(&query, call, k);
    rv = sl_buf_error(&query);
    if (rv == 0 && possible) {
        call->on_reply = on_hits;
        rv = send_search(call, sl_buf_span(&query), k);
    }
    if (rv != 0 || !possible) {
        redis_call_end_later(call, rv, "");
    }
    sl_buf_fini(&query);
}
