/*
 * What the servers that a question needs answer, as a broken or malicious one may, chosen by the
 * first byte: vectors, rerank scores, the chat model's stream, the hits of Qdrant and OpenSearch,
 * and what these two say about their indexes and about writes. The rerank and generate stages run
 * on the fake runtime, so that each of their jobs is settled once, whatever came. Checked besides:
 * a finished answer is all of the text that was sent, and a stream without its finish never ends as
 * a whole answer; hits that are taken are whole and no more than were asked for; what is missing of
 * an index is asked for in JSON; what cannot be used says why.
 */
#include "common/log.h"
#include "common/store_opensearch_write.h"
#include "common/store_qdrant_write.h"
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/embed/vectors.h"
#include "workers/generate/generate.h"
#include "workers/rerank/rerank.h"

#include <math.h>
#include <stdint.h>

enum { HITS = 3, SLOW_AFTER = 40, TOP_K = 3, ARENA_MAX = 16 << 20, WRITES_FROM = 0x80 };

static struct sl_worker *rerank, *generate;
static struct sl_store *stores[2];
static long answers;

/* In the place of common/log.c: a line for each input is too much. */
void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    (void)level;
    (void)message;
}

/* --- embeddings --- */

static void read_vectors(struct sl_span body, size_t count)
{
    float *vectors = NULL;
    size_t dim = 0;
    char why[160] = "";
    int rv = vectors_read_response(body, count, &vectors, &dim, why, sizeof(why));
    if (rv != 0) {
        CHECK(rv == -SL_EPROTO && why[0] != '\0' && vectors == NULL);
        return;
    }
    CHECK(dim > 0);
    for (size_t i = 0; i < count * dim; i++) {
        CHECK(isfinite(vectors[i]));
    }
    free(vectors);
}

/* --- rerank --- */

static void read_scores(const char *body)
{
    static const char *const names[HITS] = {"a", "b", "c"};
    struct sl_hit hits[HITS] = {{.score = 0}};
    struct sl_job *job = fake_job_create(rerank, "q");
    for (size_t i = 0; i < HITS; i++) {
        hits[i] = (struct sl_hit){.chunk_id = sl_span_of(names[i]), .text = sl_span_of(names[i])};
    }
    job->query.hits = hits;
    job->query.hits_len = HITS;
    job->query.top_n = 2;
    fake_start(job);
    fake_call_end(fake_call(rerank, 0), 0, 200, body);
    CHECK(job->settled == FAKE_FORWARDED && job->event_count == 1);
    CHECK(job->query.hits_len >= 1 && job->query.hits_len <= 2);
    for (size_t i = 1; i < job->query.hits_len; i++) {
        CHECK(!sl_span_equal(job->query.hits[i].chunk_id, job->query.hits[0].chunk_id));
        CHECK(job->query.degraded != 0 || job->query.hits[i].score <= job->query.hits[0].score);
    }
    fake_job_destroy(job);
    fake_forget_calls(rerank);
}

/* --- chat --- */

static void let_stream(struct sl_job *job, bool *told)
{
    if (job->settled == FAKE_OPEN && job->on_streaming != NULL && !*told) {
        *told = true;
        job->on_streaming(job);
    }
}

static void let_emit(struct sl_job *job)
{
    job->emit_err = 0;
    if (job->settled == FAKE_OPEN && job->on_room != NULL) {
        void (*on_room)(struct sl_job * job) = job->on_room;
        job->on_room = NULL;
        on_room(job);
    }
}

static void check_sent(const struct sl_job *job)
{
    char sent[2 * FAKE_TEXT_MAX] = "";
    CHECK(job->result.finish_reason.len > 0);
    for (size_t i = 0; i < job->event_count; i++) {
        if (strlen(job->events[i].text) + 1 == sizeof(job->events[i].text)) {
            return; /* Cut by the fake. */
        }
        strncat(sent, job->events[i].text, sizeof(sent) - strlen(sent) - 1);
    }
    sent[FAKE_TEXT_MAX - 1] = '\0';
    CHECK_STR(job->answer, sent);
}

/* In pieces; the claim says `streaming` at once or late, the reply topic grows slow, the stream is
 * cut at its end, by the bits of how. */
static void read_stream(const char *stream, unsigned how)
{
    struct sl_job *job = fake_job_create(generate, "q");
    fake_start(job);
    struct sl_upstream_call *call = fake_call(generate, 0);
    size_t left = strlen(stream), step = 1 + how % 61;
    bool told = false;
    int rv = 0;
    while (left > 0 && rv == 0 && job->settled == FAKE_OPEN) {
        char piece[64];
        size_t len = left < step ? left : step;
        snprintf(piece, sizeof(piece), "%.*s", (int)len, stream);
        rv = fake_call_data(call, piece);
        stream += len;
        left -= len;
        if ((how & 64) == 0) {
            let_stream(job, &told);
        }
        job->emit_err = job->event_count >= SLOW_AFTER ? -SL_EAGAIN : 0;
    }
    if (call->open) {
        fake_call_end(call, rv != 0 ? rv : (how & 128) != 0 ? -SL_ECUT : 0, 200, "");
    }
    let_stream(job, &told);
    let_emit(job);
    CHECK(job->settled == FAKE_FINISHED || job->settled == FAKE_FAILED);
    if (job->settled == FAKE_FINISHED) {
        check_sent(job);
    }
    fake_job_destroy(job);
    fake_forget_calls(generate);
}

/* --- stores --- */

static void on_hits(void *ctx, int err, struct sl_hit *hits, size_t len, const char *detail)
{
    (void)ctx;
    answers++;
    CHECK(err == 0 || err == -SL_EPROTO || err == -SL_ENOMEM || err == -SL_EUPSTREAM);
    CHECK(err == 0 || (detail[0] != '\0' && len == 0));
    CHECK(len <= TOP_K);
    for (size_t i = 0; i < len; i++) {
        CHECK(hits[i].doc_id.data != NULL && hits[i].chunk_id.data != NULL);
        CHECK(hits[i].text.data != NULL && hits[i].metadata.data != NULL);
    }
}

static struct sl_store *open_store(const struct sl_store_backend *backend, const char *url)
{
    const struct sl_store_env env = {.loop = fake_loop(rerank), .limit_name = "VECTOR"};
    struct sl_store *store = NULL;
    char why[200];
    CHECK(backend->open(url, &env, &store, why, sizeof(why)) == 0);
    return store;
}

static void search(struct sl_store *store, bool scoped, const char *body)
{
    static const float vector[2] = {1, 2};
    static const struct sl_pair filter = {{"lang", 4}, {"7", 1}};
    struct sl_store_call *call;
    struct sl_arena arena;
    sl_arena_init(&arena, ARENA_MAX);
    const struct sl_store_search wanted = {
        .scope = {.tenant = scoped ? SL_SPAN("acme") : SL_SPAN("default"),
                  .collection = SL_SPAN("default"),
                  .filter = &filter,
                  .filter_len = scoped ? 1 : 0},
        .vector = vector,
        .dim = 2,
        .top_k = TOP_K,
        .arena = &arena};
    long before = answers;
    CHECK(store->backend->search(store, &wanted, on_hits, NULL, &call) == 0);
    fake_call_end(fake_call(rerank, 0), 0, 200, body);
    CHECK_INT(answers, before + 1);
    fake_forget_calls(rerank);
    sl_arena_fini(&arena);
}

/* --- indexes and writes --- */

static const struct writing {
    bool (*is_missing)(const struct sl_json *answer);
    int (*read_shape)(const struct sl_json *answer, struct sl_http_shape *ret, char *why,
                      size_t why_size);
    bool (*make)(const struct sl_http_shape *shape, const struct sl_store_env *env, uint32_t dim,
                 struct sl_http_step *step);
    int (*read_upsert)(const struct sl_json *answer, size_t len, char *why, size_t why_size);
    int (*read_delete)(const struct sl_json *answer, char *why, size_t why_size);
} writings[] = {
    {qdrant_is_missing, qdrant_read_shape, qdrant_make, qdrant_read_upsert, qdrant_read_delete},
    {opensearch_is_missing, opensearch_read_shape, opensearch_make, opensearch_read_upsert,
     opensearch_read_delete},
};

static void check_make(const struct writing *writing, const struct sl_http_shape *shape)
{
    const struct sl_store_env env = {.analyzer = "english"};
    struct sl_http_step step = {.method = ""};
    struct sl_json_doc *doc = NULL;
    sl_buf_init(&step.body, ARENA_MAX);
    if (writing->make(shape, &env, 384, &step)) {
        CHECK(strcmp(step.method, "PUT") == 0 && strstr(step.path, "%s") != NULL);
        CHECK(sl_buf_error(&step.body) == 0);
        CHECK(sl_json_parse(sl_buf_span(&step.body), &doc, NULL, 0) == 0);
        sl_json_free(doc);
    }
    sl_buf_fini(&step.body);
}

static void read_shape(const struct writing *writing, const struct sl_json *answer)
{
    struct sl_http_shape shape = {.known = true, .exists = true};
    char why[160] = "";
    int rv = writing->read_shape(answer, &shape, why, sizeof(why));
    CHECK(rv == 0 || (rv == -SL_EPROTO && why[0] != '\0'));
    CHECK(memchr(shape.unfit, '\0', sizeof(shape.unfit)) != NULL);
    if (rv == 0 && shape.unfit[0] == '\0') {
        check_make(writing, &shape);
    }
}

static void read_write(const struct writing *writing, unsigned how, struct sl_span body)
{
    struct sl_json_doc *doc = NULL;
    char why[160] = "";
    if (sl_json_parse(body, &doc, NULL, 0) != 0) {
        return;
    }
    const struct sl_json *root = sl_json_root(doc);
    writing->is_missing(root);
    read_shape(writing, root);
    int rv = (how & 2) != 0 ? writing->read_upsert(root, how >> 2, why, sizeof(why))
                            : writing->read_delete(root, why, sizeof(why));
    CHECK(rv == 0 || rv == -SL_EREJECTED || rv == -SL_ERATE || rv == -SL_EUPSTREAM ||
          rv == -SL_EPROTO || rv == -SL_EAGAIN || rv == SL_HTTP_WRITTEN_FIRST);
    CHECK(rv >= 0 || why[0] != '\0');
    sl_json_free(doc);
}

/* --- the run --- */

static void begin(void)
{
    setenv("SLUICE_RERANK_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_CHAT_URL", "http://127.0.0.1:1/v1", 1);
    generate = fake_worker_create(&generate_stage);
    rerank = fake_worker_create(&rerank_stage); /* Last: the stores' calls are with its own. */
    stores[0] = open_store(&sl_store_qdrant, "qdrant+http://127.0.0.1:1/c");
    stores[1] = open_store(&sl_store_opensearch, "opensearch+http://127.0.0.1:1/c");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    if (rerank == NULL) {
        begin();
    }
    if (data[0] >= WRITES_FROM) {
        read_write(&writings[data[1] & 1], data[1],
                   (struct sl_span){(const char *)data + 2, size - 2});
        return 0;
    }
    char *text = strndup((const char *)data + 2, size - 2);
    CHECK(text != NULL);
    switch (data[0] % 4) {
    case 0:
        read_vectors((struct sl_span){(const char *)data + 2, size - 2}, 1 + data[1] % 4);
        break;
    case 1:
        read_scores(text);
        break;
    case 2:
        read_stream(text, data[1]);
        break;
    default:
        search(stores[data[1] & 1], (data[1] & 2) != 0, text);
    }
    free(text);
    return 0;
}
