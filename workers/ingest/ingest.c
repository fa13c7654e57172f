/*
 * The ingest stage: documents in, chunks to the embedding stage, and chunks with vectors into the
 * stores. Both are bulk work: the second half comes back through a topic, so that nothing is held
 * here while vectors are made, and any worker can take it up.
 *
 * What is known of a document lives in Redis (account.c): its version, which batches are stored,
 * and how the run that it belongs to stands. A document that cannot be stored is noted there with
 * the reason and stops no other.
 */
#include "workers/ingest/ingest.h"

#include "common/log.h"
#include "common/worker.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { STORE_BUDGET_MS = 600000, SETTINGS_MAX = 16 << 10 };

struct ingest_config ingest_config;

/* --- what both inputs need --- */

/* Those that were cut; parts of one that was split again for its vectors come behind them all. */
static uint32_t cut_chunks(const struct sl_batch *batch)
{
    uint32_t chunks = 0;
    for (size_t i = 0; i < batch->len; i++) {
        chunks += sl_batch_index(batch, i) < batch->total_chunks;
    }
    return chunks;
}

void ingest_ask_about(struct ingest_job *state, enum ingest_question question,
                      void (*on_answer)(struct ingest_ask *ask))
{
    struct ingest_ask *ask = &state->ask;
    const struct sl_document *document = sl_job_document(state->job);
    const struct sl_batch *batch = sl_job_batch(state->job);
    if (document != NULL) {
        ask->tenant = document->tenant;
        ask->collection = document->collection;
        ask->doc_id = document->doc_id;
        ask->ingest_id = document->ingest_id;
        ask->place = INGEST_DOCUMENT;
        snprintf(state->source, sizeof(state->source), "%" PRId32 " %" PRId64 " %" PRId64,
                 sl_job_partition(state->job), sl_job_offset(state->job),
                 sl_job_timestamp_ms(state->job));
        ask->source = sl_span_of(state->source);
    } else {
        ask->tenant = batch->tenant;
        ask->collection = batch->collection;
        ask->doc_id = batch->doc_id;
        ask->ingest_id = batch->ingest_id;
        ask->version = batch->version;
        ask->place = batch->first;
        ask->chunks = cut_chunks(batch);
        ask->total = batch->total_chunks;
    }
    ask->on_answer = on_answer;
    ingest_ask(&state->ingest->account, ask, question);
}

/* --- jobs --- */

static struct ingest_job *begin(struct sl_job *job)
{
    struct ingest_job *state = sl_job_state(job);
    state->job = job;
    state->ingest = sl_worker_stage(sl_job_worker(job));
    sl_list_init(&state->in_opening);
    return state;
}

static void start(struct sl_job *job)
{
    struct ingest_job *state = begin(job);
    if (sl_job_document(job) != NULL) {
        ingest_document_start(state);
    } else {
        ingest_batch_start(state);
    }
}

static void note_loss(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->state == INGEST_STATE_OPEN || ask->state == INGEST_STATE_LOST ||
        ask->state == INGEST_STATE_COMPLETE) { /* Of the last, lower ones may be there still. */
        ingest_fail(state, "%s", state->why);
    } else {
        ingest_pass_over(state);
    }
}

/* A document must have its version before its failure can be noted; a batch has it. */
static void worn_out(struct sl_job *job, const char *why)
{
    struct ingest_job *state = begin(job);
    state->worn_out = true;
    state->why = why;
    if (sl_job_document(job) != NULL) {
        state->ask.message = sl_job_id(job);
        ingest_ask_about(state, INGEST_OPEN, note_loss);
    } else {
        ingest_ask_about(state, INGEST_LOOK, note_loss);
    }
}

static void cancel(struct sl_job *job)
{
    struct ingest_job *state = sl_job_state(job);
    ingest_ask_cancel(&state->ask);
    ingest_write_cancel(&state->write);
    if (sl_job_document(job) != NULL) {
        ingest_document_cancel(state);
    }
}

/* --- the stage --- */

static int open_store(struct ingest *ingest, enum sl_store_role role, char *why, size_t why_size)
{
    struct sl_store **store = &ingest->stores.store[role];
    int rv = sl_store_open_role(ingest->worker, &ingest_config.stores, role,
                                ingest_config.timeout_ms, store, why, why_size);
    if (rv == 0 && !sl_store_writable(*store)) {
        snprintf(why, why_size, "SLUICE_%s_URL: this kind of store can only be searched",
                 role == SL_STORE_VECTOR ? "VECTOR" : "KEYWORD");
        rv = -SL_EINVAL;
    }
    return rv;
}

static void fini(void *stage_state)
{
    struct ingest *ingest = stage_state;
    for (size_t i = 0; i < INGEST_STORES; i++) {
        sl_store_close(ingest->stores.store[i]);
    }
    sl_buf_fini(&ingest->settings);
    free(ingest);
}

static void init_metrics(struct ingest *ingest, struct sl_metrics *metrics)
{
    static const char name[] = "sluice_documents_total";
    static const char help[] = "Documents that ended here, by outcome.";
    ingest->processed = sl_metrics_counter(metrics, name, help, "outcome=\"processed\"");
    ingest->failed = sl_metrics_counter(metrics, name, help, "outcome=\"failed\"");
    ingest->skipped = sl_metrics_counter(metrics, name, help, "outcome=\"skipped\"");
    ingest->stored_chunks = sl_metrics_counter(metrics, "sluice_chunks_stored_total",
                                               "Chunks that the stores have taken.", NULL);
}

/* One line for each thing that what is stored of a document depends on. */
static int init_hasher(struct ingest *ingest)
{
    const struct sl_store_options *stores = &ingest_config.stores;
    sl_buf_init(&ingest->settings, SETTINGS_MAX);
    sl_buf_printf(&ingest->settings, "%s\n%s\n%s\n%s\n", ingest->cutter.settings,
                  ingest_config.model, stores->vector_url, stores->keyword_url);
    ingest->hasher = (struct ingest_hasher){.loop = sl_worker_loop(ingest->worker),
                                            .settings = sl_buf_span(&ingest->settings)};
    return sl_buf_error(&ingest->settings);
}

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    struct sl_coord *coord = sl_worker_coord(worker);
    ingest_config.stores.write = true;
    struct ingest *ingest = calloc(1, sizeof(*ingest));
    if (ingest == NULL) {
        return -SL_ENOMEM;
    }
    *ret = ingest;
    ingest->worker = worker;
    sl_list_init(&ingest->opening);
    init_metrics(ingest, sl_worker_metrics(worker));
    ingest->account = (struct ingest_account){.loop = sl_worker_loop(worker),
                                              .redis = sl_coord_redis(coord),
                                              .prefix = sl_coord_prefix(coord),
                                              .ttl_ms = sl_coord_result_ttl_ms(coord)};
    ingest->stores.loop = sl_worker_loop(worker);
    ingest->stores.coord = coord;
    ingest->stores.budget_ms = STORE_BUDGET_MS;
    const struct sl_store_options *stores = &ingest_config.stores;
    int rv = ingest_cutter_init(&ingest->cutter, sl_worker_loop(worker), sl_worker_http(worker),
                                &ingest_config.cut, why, why_size);
    rv = rv != 0 ? rv : init_hasher(ingest);
    rv = rv != 0 ? rv : open_store(ingest, SL_STORE_VECTOR, why, why_size);
    if (rv == 0 && strcmp(stores->vector_url, stores->keyword_url) != 0) {
        rv = open_store(ingest, SL_STORE_KEYWORD, why, why_size);
    }
    return rv;
}

static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    return sl_store_limits(&ingest_config.stores, ret);
}

#define AT(field) offsetof(struct ingest_config, field)
static const struct sl_option write_options[] = {
    {.name = "SLUICE_INGEST_TIMEOUT",
     .type = SL_OPT_DURATION,
     .offset = AT(timeout_ms),
     .fallback = "30s",
     .min = 100,
     .max = 600000,
     .help = "For one write to a store."},
    {.name = "SLUICE_INGEST_BATCH",
     .type = SL_OPT_INT,
     .offset = AT(batch),
     .fallback = "32",
     .min = 1,
     .max = 256,
     .help = "Chunks that are embedded and stored together."},
    {.name = "SLUICE_INGEST_BACKLOG",
     .type = SL_OPT_INT,
     .offset = AT(backlog),
     .fallback = "2000",
     .min = 1,
     .max = 1000000000,
     .help = "Batches that may wait for their vectors or for the stores, in the whole cluster; "
             "with more no document is taken up."},
    {.name = "SLUICE_EMBED_MODEL",
     .type = SL_OPT_STRING,
     .offset = AT(model),
     .fallback = "",
     .help =
         "The model that sluice-embed is told of: with another one every document has changed."},
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {
    {"Stores", sl_store_option_table, &ingest_config.stores},
    {"Writing", write_options, &ingest_config},
    {"Chunks", ingest_cut_option_table, &ingest_config.cut},
    {"Tokens", ingest_tokens_option_table, &ingest_config.cut.tokens},
};
static const char *const outputs[] = {"chunks", NULL};

const struct sl_stage ingest_stage = {
    .name = "ingest",
    .synopsis = "Cuts documents into chunks, and writes chunks and their vectors to the stores.",
    .index = SL_STAGE_COUNT,
    .inputs = {{.topic = "documents", .kind = SL_INPUT_DOCUMENT, .bulk = true, .public = true},
               {.topic = "vectors", .kind = SL_INPUT_BATCH, .bulk = true}},
    .outputs = outputs,
    .limits = limits,
    .admin_address = "127.0.0.1:9105",
    .drain_ms = 10000,
    .behind = {{"chunks", "embed"}, {"vectors", "ingest"}},
    .behind_max = &ingest_config.backlog,
    .max_inflight = 10,
    .state_size = sizeof(struct ingest_job),
    .option_sets = option_sets,
    .option_set_count = 4,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
    .worn_out = worn_out,
};
