/* Chunks of documents: which of them share a call, what becomes of one that is too long, and what a
 * server that is broken costs. On a fake runtime, with a server that this file plays. */
#include "common/clock.h"
#include "common/json.h"
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/embed/embed.h"
#include "workers/embed/split.h"

enum { TEXTS_MAX = 256, JOBS_MAX = 12, ANSWER_MAX = 8 << 20 };

static struct sl_worker *worker;
static uint64_t now_us = 1000000000;
static size_t answered; /* Calls, so far. */

/* The server: of which length texts are too long, or what it answers to everything. */
static struct {
    size_t too_long; /* Characters; 0: none. */
    int err, status;
    size_t dim; /* 0: 2. */
} server;

static void setup(void)
{
    sl_clock_use(&now_us);
    setenv("SLUICE_EMBED_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_EMBED_CACHE", "0", 1);
    setenv("SLUICE_EMBED_LIMIT", "4", 1);
    setenv("SLUICE_EMBED_RESERVE", "2", 1);
    setenv("SLUICE_EMBED_BULK_BATCH", "4", 1);
    memset(&server, 0, sizeof(server));
    answered = 0;
    worker = fake_worker_create(&embed_stage);
}

static void teardown(void)
{
    fake_worker_destroy(worker);
    sl_clock_use(NULL);
}

static void turn(void)
{
    fake_settle_loop(worker);
}

static void pass_window(void)
{
    turn();
    now_us += 20000;
    turn();
}

/* --- documents --- */

static struct sl_job *document(const char *id, struct sl_span *texts, size_t len)
{
    const struct sl_batch batch = {.doc_id = sl_span_of(id),
                                   .tenant = SL_SPAN("default"),
                                   .collection = SL_SPAN("default"),
                                   .total_chunks = (uint32_t)len,
                                   .texts = texts,
                                   .len = len};
    return fake_bulk_create(worker, &batch);
}

static struct sl_span texts_abc[] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
static struct sl_span texts_de[] = {{"dddd", 4}, {"eeeee", 5}};

/* The server makes a vector of a text's length and its first byte. */
static bool has_vector_of(const struct sl_batch *batch, size_t i)
{
    const float *vector = batch->vectors + i * batch->dim;
    return vector[0] == (float)batch->texts[i].len &&
           vector[1] == (float)(unsigned char)batch->texts[i].data[0];
}

static void check_stored(const struct sl_job *job, size_t len)
{
    CHECK_INT(job->settled, FAKE_DONE);
    CHECK_STR(job->topic, "vectors");
    CHECK(job->batch.failure.len == 0 && job->batch.vectors != NULL && job->batch.len == len);
    for (size_t i = 0; i < len; i++) {
        CHECK(has_vector_of(&job->batch, i));
    }
}

static void check_failed(const struct sl_job *job, const char *why)
{
    CHECK_INT(job->settled, FAKE_DONE);
    CHECK_STR(job->topic, "vectors");
    CHECK(job->batch.vectors == NULL);
    char failure[512];
    snprintf(failure, sizeof(failure), SL_SPAN_FMT, SL_SPAN_ARG(job->batch.failure));
    if (strstr(failure, why) == NULL) {
        CHECK_STR(failure, why);
    }
}

/* --- the server --- */

static const struct sl_json *inputs_of(const struct sl_upstream_call *call,
                                       struct sl_json_doc **doc)
{
    CHECK(sl_json_parse(sl_span_of(call->body.data), doc, NULL, 0) == 0);
    return sl_json_get(sl_json_root(*doc), "input");
}

static size_t texts_in(const struct sl_upstream_call *call)
{
    struct sl_json_doc *doc;
    size_t len = sl_json_len(inputs_of(call, &doc));
    sl_json_free(doc);
    return len;
}

static void put_vector(struct sl_buf *out, size_t index, struct sl_span text)
{
    sl_buf_printf(out, "%s{\"index\":%zu,\"embedding\":[%zu,%u", index > 0 ? "," : "", index,
                  text.len, (unsigned)(unsigned char)text.data[0]);
    for (size_t i = 2; i < server.dim; i++) {
        sl_buf_append_text(out, ",0.0123456789");
    }
    sl_buf_append_text(out, "]}");
}

static void answer(struct sl_upstream_call *call)
{
    struct sl_json_doc *doc;
    struct sl_buf out;
    const struct sl_json *inputs = inputs_of(call, &doc), *input;
    size_t at = 0, index = 0;
    bool refused = false;
    sl_buf_init(&out, ANSWER_MAX);
    sl_buf_append_text(&out, "{\"data\":[");
    while (sl_json_each(inputs, &at, NULL, &input)) {
        struct sl_span text = sl_json_string(input);
        refused = refused || (server.too_long > 0 && text.len >= server.too_long);
        put_vector(&out, index++, text);
    }
    sl_buf_append(&out, "]}", 3);
    CHECK(sl_buf_error(&out) == 0);
    sl_json_free(doc);
    answered++;
    if (server.err != 0) {
        fake_call_end(call, server.err, server.status, "");
    } else if (refused) {
        fake_call_end(call, -SL_EUPSTREAM, 500, "input is too large");
    } else {
        fake_call_end(call, 0, 200, out.data);
    }
    sl_buf_fini(&out);
}

/* Answers whatever is asked, until nothing is. */
static void serve(void)
{
    for (bool some = true; some;) {
        some = false;
        for (size_t i = 0; i < fake_call_count(worker); i++) {
            if (fake_call(worker, i)->open) {
                answer(fake_call(worker, i));
                some = true;
            }
        }
        turn();
    }
    fake_forget_calls(worker);
}

/* --- gathering --- */

TEST(chunks_of_several_documents_share_a_call)
{
    setup();
    struct sl_job *a = document("a", texts_abc, 3), *b = document("b", texts_de, 2);
    fake_start(a);
    turn();
    CHECK_INT(fake_call_count(worker), 0); /* One more would fit. */
    fake_start(b);
    turn();
    CHECK_INT(fake_call_count(worker), 1);
    CHECK(fake_call(worker, 0)->request.bulk && fake_call(worker, 0)->request.once);
    CHECK(strstr(fake_call(worker, 0)->body.data, "[\"a\",\"bb\",\"ccc\",\"dddd\"]") != NULL);
    answer(fake_call(worker, 0));
    check_stored(a, 3);
    CHECK_INT(b->settled, FAKE_OPEN); /* Its other text is in another call. */
    pass_window();
    serve();
    check_stored(b, 2);
    CHECK_INT(answered, 2);
    fake_job_destroy(a);
    fake_job_destroy(b);
    teardown();
}

TEST(what_waits_when_all_permits_are_in_use_fills_the_next_calls)
{
    setup();
    struct sl_job *jobs[6];
    for (size_t i = 0; i < 6; i++) {
        jobs[i] = document("d", texts_de, 2);
        fake_start(jobs[i]);
        pass_window();
    }
    CHECK_INT(fake_call_count(worker), 2); /* Of four permits two are kept for questions. */
    answer(fake_call(worker, 0));
    turn();
    CHECK_INT(fake_call_count(worker), 3);
    CHECK_INT(texts_in(fake_call(worker, 2)), 4);
    serve();
    for (size_t i = 0; i < 6; i++) {
        check_stored(jobs[i], 2);
        fake_job_destroy(jobs[i]);
    }
    teardown();
}

TEST(a_document_leaves_its_calls_and_the_last_closes_them)
{
    setup();
    struct sl_job *a = document("a", texts_abc, 3), *b = document("b", texts_de, 2);
    fake_start(a);
    fake_start(b);
    turn();
    fake_cancel(a);
    CHECK(!fake_call(worker, 0)->cancelled);
    answer(fake_call(worker, 0));
    pass_window();
    serve();
    check_stored(b, 2);
    CHECK_INT(a->settled, FAKE_OPEN);
    fake_job_destroy(b);

    b = document("b", texts_de, 2);
    fake_start(b);
    pass_window();
    struct sl_job *waits = document("c", texts_de, 1);
    fake_start(waits);
    fake_cancel(waits);
    fake_cancel(b);
    CHECK(fake_call(worker, 0)->cancelled);
    pass_window();
    CHECK_INT(fake_call_count(worker), 1);
    fake_job_destroy(a);
    fake_job_destroy(b);
    fake_job_destroy(waits);
    teardown();
}

TEST(a_batch_that_finds_no_room_is_sent_when_there_is_some)
{
    setup();
    struct sl_job *job = document("a", texts_abc, 3);
    job->emit_err = -SL_EAGAIN;
    fake_start(job);
    pass_window();
    serve();
    CHECK(job->settled == FAKE_OPEN && job->on_room != NULL);
    job->emit_err = 0;
    job->on_room(job);
    check_stored(job, 3);
    fake_job_destroy(job);
    teardown();
}

/* Else its run would wait for ever. */
TEST(vectors_that_are_too_large_to_be_sent_fail_their_document)
{
    setup();
    server.dim = 512;
    struct sl_job *job = document("a", texts_abc, 3);
    job->send_max = 2048;
    fake_start(job);
    pass_window();
    serve();
    check_failed(job, "the vectors are larger than their topic takes");
    fake_job_destroy(job);
    teardown();
}

TEST(batches_of_no_text_or_too_many_are_refused)
{
    static struct sl_span many[TEXTS_MAX + 1];
    setup();
    for (size_t i = 0; i <= TEXTS_MAX; i++) {
        many[i] = SL_SPAN("x");
    }
    struct sl_job *none = document("a", many, 0), *all = document("b", many, TEXTS_MAX + 1);
    fake_start(none);
    fake_start(all);
    CHECK(none->settled == FAKE_FAILED && all->settled == FAKE_FAILED);
    fake_job_destroy(none);
    fake_job_destroy(all);
    teardown();
}

/* --- texts that are too long --- */

static const char long_text[] = "The first sentence of this chunk is here, and it is not short at "
                                "all. A second one follows it, "
                                "with some more words than that. Then there is a third, which has "
                                "nothing to say. The fourth is "
                                "the last one, and ends where the chunk ends.";

static struct sl_job *document_with_long_chunk(void)
{
    static struct sl_span texts[3] = {{"a", 1}, {long_text, sizeof(long_text) - 1}, {"ccc", 3}};
    static const struct sl_span headings[3] = {{"", 0}, {"A > B", 5}, {"C", 1}};
    struct sl_job *job = document("d", texts, 3);
    job->batch.headings = headings;
    job->batch.first = 4;
    job->batch.total_chunks = 7;
    return job;
}

TEST(a_chunk_that_is_too_long_is_cut_and_its_parts_have_places_of_their_own)
{
    setup();
    server.too_long = 100;
    struct sl_job *job = document_with_long_chunk(), *other = document("o", texts_de, 2);
    fake_start(job);
    fake_start(other);
    pass_window();
    serve();
    check_stored(other, 2);
    size_t parts = job->batch.len - 2, bytes = 0;
    check_stored(job, parts + 2);
    CHECK(parts > 2 && job->batch.indexes != NULL);
    CHECK(job->batch.indexes[0] == 4 && job->batch.indexes[parts + 1] == 6);
    for (size_t i = 0; i < parts; i++) {
        struct sl_span part = job->batch.texts[1 + i];
        CHECK_INT(job->batch.indexes[1 + i], 5 + 7 * i);
        CHECK(sl_span_is(job->batch.headings[1 + i], "A > B"));
        CHECK(part.len < 100 && part.len > 0 && part.data >= long_text + bytes);
        bytes = (size_t)(part.data - long_text) + part.len;
    }
    CHECK_INT(bytes, sizeof(long_text) - 1); /* In the order of the text, up to its end. */
    CHECK(strncmp(job->batch.texts[2].data, "A second", 8) == 0 ||
          strncmp(job->batch.texts[2].data, "Then", 4) == 0);
    fake_job_destroy(job);
    fake_job_destroy(other);
    teardown();
}

TEST(a_text_that_is_refused_however_short_fails_its_document_alone)
{
    setup();
    server.too_long = 20;
    struct sl_job *job = document_with_long_chunk(), *other = document("o", texts_de, 2);
    fake_start(job);
    fake_start(other);
    pass_window();
    serve();
    check_stored(other, 2);
    check_failed(job, "chunk 5: refused by itself, and too short to be cut");
    CHECK(answered < 16);
    fake_job_destroy(job);
    fake_job_destroy(other);
    teardown();
}

TEST(cuts_are_behind_sentences_then_words_then_between_characters)
{
    static const struct {
        const char *text;
        size_t at;
    } cases[] = {
        {"short", 0},
        {"one two three. four five six", 15},
        {"one two three four five six seven", 14},
        {"line one\nline two is here", 9},
        {"abcdefghijkl", 6},
        {"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 8},
        {"no. cut at an edge, but in the middle of this", 20},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_INT(split_at(sl_span_of(cases[i].text), 8), cases[i].at);
    }
    CHECK_INT(split_trim(SL_SPAN("one.  two"), 6), 4);
}

/* --- servers that fail --- */

TEST(chunks_outlive_an_upstream_that_is_away)
{
    setup();
    struct sl_job *job = document("d", texts_abc, 3);
    server.err = -SL_ETIMEDOUT;
    fake_start(job);
    pass_window();
    serve();
    CHECK(job->settled == FAKE_OPEN && answered == 1);
    server.err = 0;
    now_us += 2000000;
    turn();
    serve();
    check_stored(job, 3);
    fake_job_destroy(job);

    job = document("d", texts_abc, 3);
    server.err = -SL_ECONN;
    fake_start(job);
    for (int i = 0; job->settled == FAKE_OPEN; i++) {
        CHECK(i < 10);
        now_us += 40000000;
        turn();
        serve();
    }
    check_failed(job, "the upstream failed");
    fake_job_destroy(job);
    teardown();
}

TEST(a_server_that_is_broken_for_a_while_costs_a_few_calls_and_cuts_nothing)
{
    static struct sl_span texts[3] = {{long_text, sizeof(long_text) - 1}, {"b", 1}, {"c", 1}};
    setup();
    struct sl_job *job = document("d", texts, 3);
    server.err = -SL_EUPSTREAM;
    server.status = 500;
    fake_start(job);
    pass_window();
    serve();
    CHECK_INT(job->settled, FAKE_OPEN);
    CHECK_INT(answered, 4); /* 3 texts, 2, 1, and a probe. */
    now_us += 40000000;
    turn();
    serve();
    CHECK_INT(answered, 5); /* The probe again. */
    server.err = 0;
    now_us += 40000000;
    turn();
    server.too_long = 0;
    serve();
    CHECK_INT(job->settled, FAKE_DONE);
    CHECK(job->batch.failure.len == 0);
    fake_job_destroy(job);
    teardown();
}

TEST(a_server_that_stays_broken_fails_documents_and_says_so)
{
    setup();
    struct sl_job *job = document("d", texts_abc, 3);
    server.err = -SL_EUPSTREAM;
    server.status = 500;
    fake_start(job);
    pass_window();
    for (int i = 0; job->settled == FAKE_OPEN; i++) {
        CHECK(i < 10);
        serve();
        now_us += 40000000;
        turn();
    }
    check_failed(job, "every text is refused");
    CHECK(answered < 12);
    fake_job_destroy(job);
    teardown();
}

TEST(a_wrong_key_fails_documents_at_once)
{
    setup();
    struct sl_job *a = document("a", texts_abc, 3), *b = document("b", texts_de, 1);
    server.err = -SL_EREJECTED;
    server.status = 401;
    fake_start(a);
    fake_start(b);
    turn();
    serve();
    check_failed(a, "every text is refused");
    check_failed(b, "every text is refused");
    CHECK_INT(answered, 4);
    fake_job_destroy(a);
    fake_job_destroy(b);
    teardown();
}

TEST(a_batch_that_three_workers_died_of_goes_on_as_failed_without_a_call)
{
    setup();
    struct sl_job *job = document("d", texts_abc, 3);
    embed_stage.worn_out(job, "three workers died");
    check_failed(job, "embedding: three workers died");
    CHECK_INT(fake_call_count(worker), 0);
    fake_job_destroy(job);
    teardown();
}

/* --- large responses --- */

TEST(a_large_response_is_read_beside_the_loop)
{
    setup();
    server.dim = 8192;
    struct sl_job *job = document("d", texts_abc, 3), *left = document("e", texts_abc, 3);
    fake_start(job);
    pass_window();
    answer(fake_call(worker, 0));
    CHECK_INT(job->settled, FAKE_OPEN);
    for (int i = 0; i < 1000 && job->settled == FAKE_OPEN; i++) {
        sl_loop_turn(fake_loop(worker), 10);
    }
    check_stored(job, 3);
    CHECK_INT(job->batch.dim, 8192);
    fake_start(left);
    pass_window();
    answer(fake_call(worker, 1));
    fake_cancel(left); /* What is read of it is thrown away, at the latest with the worker. */
    fake_job_destroy(job);
    fake_job_destroy(left);
    teardown();
}

/* --- everything at once --- */

static unsigned seed_state;

static unsigned draw(unsigned n)
{
    seed_state = seed_state * 1103515245 + 12345;
    return (seed_state >> 16) % n;
}

static void answer_somehow(struct sl_upstream_call *call)
{
    static const struct {
        int err, status;
    } ways[] = {{-SL_EUPSTREAM, 500}, {-SL_EREJECTED, 400}, {-SL_ECONN, 0}, {-SL_ERATE, 429}};
    unsigned way = draw(12);
    server.err = way < 4 ? ways[way].err : 0;
    server.status = way < 4 ? ways[way].status : 0;
    answer(call);
    server.err = 0;
}

static void run_at_random(unsigned seed)
{
    static struct sl_span texts[8];
    struct sl_job *jobs[JOBS_MAX];
    seed_state = seed;
    server.too_long = 80;
    for (size_t i = 0; i < 8; i++) {
        texts[i] = (struct sl_span){long_text, 1 + draw(sizeof(long_text) - 2)};
    }
    for (size_t i = 0; i < JOBS_MAX; i++) {
        jobs[i] = document("d", texts, 1 + draw(8));
        fake_start(jobs[i]);
    }
    for (int round = 0;; round++) {
        size_t open = 0;
        CHECK(round < 3000);
        for (size_t i = 0; i < JOBS_MAX; i++) {
            if (jobs[i] != NULL && jobs[i]->settled == FAKE_OPEN && draw(400) == 0) {
                fake_cancel(jobs[i]);
                fake_job_destroy(jobs[i]);
                jobs[i] = NULL;
            }
            open += jobs[i] != NULL && jobs[i]->settled == FAKE_OPEN ? 1 : 0;
        }
        if (open == 0) {
            break;
        }
        for (size_t i = 0; i < fake_call_count(worker); i++) {
            if (fake_call(worker, i)->open && draw(2) == 0) {
                answer_somehow(fake_call(worker, i));
            }
        }
        now_us += draw(4) == 0 ? 40000000 : 1000;
        turn();
    }
    for (size_t i = 0; i < JOBS_MAX; i++) {
        if (jobs[i] != NULL) {
            CHECK_INT(jobs[i]->settled, FAKE_DONE);
            if (jobs[i]->batch.vectors != NULL) {
                check_stored(jobs[i], jobs[i]->batch.len);
            }
            fake_job_destroy(jobs[i]);
        }
    }
    for (size_t i = 0; i < fake_call_count(worker); i++) {
        CHECK(!fake_call(worker, i)->open);
    }
    fake_forget_calls(worker);
}

TEST(documents_settle_once_whatever_the_server_does)
{
    setup();
    for (unsigned seed = 1; seed <= 200; seed++) {
        run_at_random(seed);
    }
    teardown();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        CASE(chunks_of_several_documents_share_a_call),
        CASE(what_waits_when_all_permits_are_in_use_fills_the_next_calls),
        CASE(a_document_leaves_its_calls_and_the_last_closes_them),
        CASE(a_batch_that_finds_no_room_is_sent_when_there_is_some),
        CASE(vectors_that_are_too_large_to_be_sent_fail_their_document),
        CASE(batches_of_no_text_or_too_many_are_refused),
        CASE(a_chunk_that_is_too_long_is_cut_and_its_parts_have_places_of_their_own),
        CASE(a_text_that_is_refused_however_short_fails_its_document_alone),
        CASE(cuts_are_behind_sentences_then_words_then_between_characters),
        CASE(chunks_outlive_an_upstream_that_is_away),
        CASE(a_server_that_is_broken_for_a_while_costs_a_few_calls_and_cuts_nothing),
        CASE(a_server_that_stays_broken_fails_documents_and_says_so),
        CASE(a_wrong_key_fails_documents_at_once),
        CASE(a_batch_that_three_workers_died_of_goes_on_as_failed_without_a_call),
        CASE(a_large_response_is_read_beside_the_loop),
        CASE(documents_settle_once_whatever_the_server_does),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
