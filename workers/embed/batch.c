/*
 * The job of a batch: up to 256 chunks of one document, which get their vectors and go on to
 * ingestion.
 *
 * The happy path: what the cache has is taken from it, a few look-ups one after the other; the
 * other chunks wait for calls (bulk.c), which they share with those of other documents. When the
 * last one has its vector the batch goes on.
 *
 * A chunk that is too long for the model is cut in two near its middle, where a sentence or a word
 * ends, and each part again if need be. The first part keeps the chunk's index in the document; the
 * further ones, in the order of the text, get `total * part + index`, which no other chunk has, and
 * which is the same whenever the same model sees the same text. A text of fewer than SPLIT_MIN
 * characters is not cut: then the document fails. So it does when a chunk's call failed for good:
 * the batch goes on with the reason in place of vectors, so that ingestion can say which document
 * it was.
 */
#include "workers/embed/embed_internal.h"

#include "common/worker.h"
#include "workers/embed/split.h"

#include <stdio.h>

enum { BATCH_BYTES = 64 << 20, SPLIT_MIN = 64 };

static struct embed_stage *stage_of(struct sl_job *job)
{
    return sl_worker_stage(sl_job_worker(job));
}

/* --- going on --- */

/* Chunks that were cut: one text, heading, index and vector for each part. */
static int spread(struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    struct sl_batch *batch = sl_job_batch(job);
    struct sl_arena *arena = sl_job_arena(job);
    size_t len = batch->len + state->added, at = 0, dim = state->dim;
    struct sl_span *texts = sl_arena_alloc(arena, len * sizeof(*texts));
    struct sl_span *headings = sl_arena_alloc(arena, len * sizeof(*headings));
    uint32_t *indexes = sl_arena_alloc(arena, len * sizeof(*indexes));
    float *vectors = sl_arena_alloc(arena, len * dim * sizeof(*vectors));
    if (texts == NULL || headings == NULL || indexes == NULL || vectors == NULL) {
        return -SL_ENOMEM;
    }
    for (size_t i = 0; i < batch->len; i++) {
        uint64_t part = 0, index = sl_batch_index(batch, i);
        if (index >= batch->total_chunks) {
            return -SL_EINVAL; /* The indexes of parts would be those of other chunks. */
        }
        for (const struct embed_piece *p = &state->pieces[i]; p != NULL; p = p->next, part++) {
            uint64_t place = batch->total_chunks * part + index;
            if (place > INT32_MAX) {
                return -SL_ETOOBIG;
            }
            texts[at] = p->text;
            headings[at] = batch->headings != NULL ? batch->headings[i] : SL_SPAN("");
            indexes[at] = (uint32_t)place;
            memcpy(vectors + at * dim, p->vector, dim * sizeof(*vectors));
            at++;
        }
    }
    batch->texts = texts;
    batch->headings = batch->headings != NULL ? headings : NULL;
    batch->indexes = indexes;
    batch->len = len;
    state->vectors = vectors;
    return 0;
}

static void send_batch(struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    struct sl_batch *batch = sl_job_batch(job);
    struct sl_buf out;
    sl_buf_init(&out, BATCH_BYTES);
    batch->vectors = state->failure[0] == '\0' ? state->vectors : NULL;
    batch->dim = batch->vectors != NULL ? (uint32_t)state->dim : 0;
    batch->failure = sl_span_of(state->failure);
    sl_batch_encode(batch, &out);
    int rv = sl_buf_error(&out);
    rv = rv != 0 ? rv : sl_job_send(job, "vectors", batch->doc_id, sl_buf_span(&out));
    sl_buf_fini(&out);
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, send_batch);
    } else if (rv != 0 && state->failure[0] == '\0') { /* Ingestion is told, without vectors. */
        embed_batch_lost(job, "the vectors are larger than their topic takes");
    } else if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, "the vectors are larger than their topic takes");
    } else {
        sl_job_done(job);
    }
}

/* All chunks have their vectors. */
static void complete(struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    int rv = state->added > 0 ? spread(job) : 0;
    if (rv != 0) {
        snprintf(state->failure, sizeof(state->failure), "embedding: %s",
                 rv == -SL_EINVAL    ? "the batch has fewer chunks in all than it says"
                 : rv == -SL_ETOOBIG ? "its chunks were cut into too many parts"
                                     : sl_error_text(rv));
    }
    send_batch(job);
}

void embed_batch_lost(struct sl_job *job, const char *why)
{
    struct embed_state *state = sl_job_state(job);
    snprintf(state->failure, sizeof(state->failure), "embedding: %s", why);
    send_batch(job);
}

/* --- pieces --- */

static void take_back(struct embed_stage *stage, struct embed_state *state)
{
    for (size_t i = 0; i < state->len; i++) {
        for (struct embed_piece *p = &state->pieces[i]; p != NULL; p = p->next) {
            embed_bulk_remove(stage, p);
        }
    }
}

static void fail(struct sl_job *job, const char *why)
{
    take_back(stage_of(job), sl_job_state(job));
    embed_batch_lost(job, why);
}

void embed_piece_failed(struct embed_piece *piece, const char *why)
{
    struct embed_state *state = sl_job_state(piece->job);
    take_back(stage_of(piece->job), state);
    snprintf(state->failure, sizeof(state->failure), "chunk %u: %s",
             sl_batch_index(sl_job_batch(piece->job), piece->chunk), why);
    send_batch(piece->job);
}

/* The room for its vector; parts that were added have their own. NULL: out of memory. */
static float *room_for(struct embed_state *state, const struct embed_piece *piece, size_t dim)
{
    struct sl_arena *arena = sl_job_arena(piece->job);
    if (piece != &state->pieces[piece->chunk]) {
        return sl_arena_alloc(arena, dim * sizeof(float));
    }
    if (state->vectors == NULL) {
        state->vectors = sl_arena_alloc(arena, state->len * dim * sizeof(float));
    }
    return state->vectors != NULL ? state->vectors + piece->chunk * dim : NULL;
}

/* The model has another dimension than when those in the cache were made: they are made again.
 * false: it has changed between two calls for this document. */
static bool accept_dim(struct embed_state *state, size_t dim)
{
    struct embed_stage *stage = stage_of(state->job);
    for (size_t i = 0; i < state->len && state->dim != 0 && state->dim != dim; i++) {
        for (const struct embed_piece *p = &state->pieces[i]; p != NULL; p = p->next) {
            if (p->vector != NULL && !p->kept) {
                return false;
            }
        }
    }
    for (size_t i = 0; i < state->len && state->dim != dim; i++) {
        struct embed_piece *piece = &state->pieces[i];
        if (piece->vector != NULL) {
            piece->vector = NULL;
            piece->kept = false;
            state->open++;
            embed_bulk_add(stage, piece);
        }
    }
    state->vectors = state->dim != dim ? NULL : state->vectors;
    state->dim = dim;
    return true;
}

void embed_piece_done(struct embed_piece *piece, const float *vector, size_t dim)
{
    struct embed_state *state = sl_job_state(piece->job);
    struct embed_cache *cache = stage_of(piece->job)->cache;
    if (!accept_dim(state, dim)) {
        fail(piece->job, "the model's dimension changed within a document");
        return;
    }
    float *room = room_for(state, piece, dim);
    if (room == NULL) {
        fail(piece->job, sl_error_text(-SL_ENOMEM));
        return;
    }
    memcpy(room, vector, dim * sizeof(*vector));
    piece->vector = room;
    if (cache != NULL && piece->whole) {
        embed_cache_put(cache, EMBED_CHUNK, &piece->key, vector, dim);
    }
    if (--state->open == 0) {
        complete(piece->job);
    }
}

int embed_piece_split(struct embed_piece *piece, struct embed_piece **ret)
{
    struct embed_state *state = sl_job_state(piece->job);
    size_t at = split_at(piece->text, SPLIT_MIN);
    if (at == 0) {
        return -SL_ETOOBIG;
    }
    struct embed_piece *second = sl_arena_alloc(sl_job_arena(piece->job), sizeof(*second));
    if (second == NULL) {
        return -SL_ENOMEM;
    }
    *second = (struct embed_piece){.job = piece->job,
                                   .next = piece->next,
                                   .chunk = piece->chunk,
                                   .text = {piece->text.data + at, piece->text.len - at}};
    sl_list_init(&second->node);
    piece->text.len = split_trim(piece->text, at);
    piece->whole = false;
    piece->next = second;
    state->open++;
    state->added++;
    *ret = second;
    return 0;
}

/* --- looking up --- */

/* What was not found waits for calls. */
static void embed_rest(struct embed_state *state)
{
    struct embed_stage *stage = stage_of(state->job);
    for (size_t i = 0; i < state->len; i++) {
        if (state->pieces[i].vector == NULL) {
            embed_bulk_add(stage, &state->pieces[i]);
        }
    }
}

static void look_up(struct embed_state *state);

/* Without room for a vector it is embedded: that says what is the matter. */
static bool use_entry(struct embed_state *state, struct embed_piece *piece, struct sl_span entry)
{
    size_t dim = state->dim != 0 ? state->dim : stage_of(state->job)->dim;
    float *room = dim != 0 && entry.len > 0 ? room_for(state, piece, dim) : NULL;
    state->dim = room != NULL ? dim : state->dim;
    if (room == NULL || !embed_cache_read(entry, &piece->key, dim, room)) {
        return false;
    }
    piece->vector = room;
    piece->kept = true;
    state->open--;
    return true;
}

static void on_found(void *ctx, const struct sl_span *entries, size_t len)
{
    struct embed_state *state = ctx;
    struct embed_cache *cache = stage_of(state->job)->cache;
    state->ask = NULL;
    for (size_t i = 0; i < len; i++) {
        struct embed_piece *piece = &state->pieces[state->looked++];
        embed_cache_count(cache, EMBED_CHUNK, use_entry(state, piece, entries[i]));
    }
    look_up(state);
}

/* The next of them; then what was not found. */
static void look_up(struct embed_state *state)
{
    struct embed_stage *stage = stage_of(state->job);
    struct embed_key keys[EMBED_ASK_MAX];
    size_t left = state->len - state->looked;
    size_t len = left < EMBED_ASK_MAX ? left : EMBED_ASK_MAX;
    for (size_t i = 0; i < len; i++) {
        struct embed_piece *piece = &state->pieces[state->looked + i];
        embed_cache_key(stage->cache, piece->text, &piece->key);
        piece->whole = true;
        keys[i] = piece->key;
    }
    if (len > 0 &&
        embed_cache_get(stage->cache, EMBED_CHUNK, keys, len, on_found, state, &state->ask) == 0) {
        return;
    }
    if (state->open > 0) {
        embed_rest(state);
    } else {
        complete(state->job);
    }
}

/* --- beginning and end --- */

void embed_batch_start(struct embed_stage *stage, struct sl_job *job)
{
    const struct sl_batch *batch = sl_job_batch(job);
    struct embed_state *state = sl_job_state(job);
    if (batch->len == 0 || batch->len > EMBED_TEXTS_MAX) {
        sl_job_fail(job, SL_QERR_BAD_REQUEST, "a batch must have 1 to 256 texts");
        return;
    }
    state->pieces = sl_arena_alloc(sl_job_arena(job), batch->len * sizeof(*state->pieces));
    if (state->pieces == NULL) {
        embed_batch_lost(job, sl_error_text(-SL_ENOMEM));
        return;
    }
    for (size_t i = 0; i < batch->len; i++) {
        state->pieces[i] = (struct embed_piece){.job = job, .chunk = i, .text = batch->texts[i]};
        sl_list_init(&state->pieces[i].node);
    }
    state->len = state->open = batch->len;
    if (stage->cache != NULL) {
        look_up(state);
    } else {
        embed_rest(state);
    }
}

void embed_batch_cancel(struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    if (state->ask != NULL) {
        embed_cache_cancel(state->ask);
        state->ask = NULL;
    }
    take_back(stage_of(job), state);
}
