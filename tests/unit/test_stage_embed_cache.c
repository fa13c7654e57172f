/* Vectors that Redis keeps: who is spared a call, what is not taken for a vector, and that nobody
 * waits. On a fake runtime with a fake Redis. */
#include "common/clock.h"
#include "common/worker.h"
#include "tests/support/stage/fake_redis.h"
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/embed/cache.h"
#include "workers/embed/embed.h"

#include <math.h>

static struct sl_worker *worker;
static uint64_t now_us = 1000000000;

#define ONE "{\"data\":[{\"index\":0,\"embedding\":[1,2]}]}"
#define ONE_OF_THREE "{\"data\":[{\"index\":0,\"embedding\":[1,2,3]}]}"

static void setup(void)
{
    sl_clock_use(&now_us);
    setenv("SLUICE_EMBED_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_EMBED_CACHE", "100", 1);
    worker = fake_worker_create(&embed_stage);
}

static void teardown(void)
{
    fake_worker_destroy(worker);
    sl_clock_use(NULL);
}

static void pass(uint64_t ms)
{
    fake_settle_loop(worker);
    now_us += ms * 1000;
    fake_settle_loop(worker);
}

static void answer_redis(void)
{
    while (fake_redis_open() > 0) {
        fake_redis_answer(0);
    }
}

/* Asked, and answered by the model where it is asked; what was made is in Redis then. */
static struct sl_job *ask(const char *question)
{
    struct sl_job *job = fake_job_create(worker, question);
    fake_prepare(job);
    answer_redis();
    fake_start(job);
    pass(0);
    return job;
}

static void embed_once(const char *question)
{
    struct sl_job *job = ask(question);
    CHECK_INT(fake_call_count(worker), 1);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(fake_redis_open(), 0); /* Not yet: nobody waits for it. */
    pass(5);
    CHECK_INT(fake_redis_open(), 1);
    answer_redis();
    fake_job_destroy(job);
    fake_forget_calls(worker);
}

static struct sl_job *document(struct sl_span *texts, size_t len)
{
    const struct sl_batch batch = {.doc_id = SL_SPAN("d"),
                                   .tenant = SL_SPAN("default"),
                                   .collection = SL_SPAN("default"),
                                   .total_chunks = (uint32_t)len,
                                   .texts = texts,
                                   .len = len};
    return fake_bulk_create(worker, &batch);
}

static bool has_metric(const char *line)
{
    struct sl_buf text;
    sl_buf_init(&text, 1 << 20);
    sl_metrics_write(sl_worker_metrics(worker), &text);
    sl_buf_append(&text, "", 1);
    bool found = strstr(text.data, line) != NULL;
    sl_buf_fini(&text);
    return found;
}

/* --- questions --- */

TEST(a_question_that_was_embedded_lately_needs_no_call)
{
    setup();
    embed_once("why?");
    struct sl_job *job = ask("why?");
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_STR(job->topic, "retrieve");
    CHECK(job->query.vector_len == 2 && job->query.vector[0] == 1.0F);
    CHECK(fake_call_count(worker) == 0 && job->attempts == 0);
    fake_job_destroy(job);
    job = ask("why"); /* Another text. */
    CHECK(job->settled == FAKE_OPEN && fake_call_count(worker) == 1);
    fake_cancel(job);
    fake_job_destroy(job);
    CHECK(has_metric("sluice_embed_cache_total{kind=\"question\",result=\"hit\"} 1\n"));
    CHECK(has_metric("sluice_embed_cache_total{kind=\"question\",result=\"miss\"} 2\n"));
    CHECK(has_metric("sluice_embed_dimensions 2\n"));
    teardown();
}

TEST(an_answer_that_is_late_is_not_waited_for)
{
    setup();
    embed_once("why?");
    struct sl_job *job = fake_job_create(worker, "why?");
    fake_prepare(job);
    fake_start(job);
    pass(0);
    CHECK_INT(fake_call_count(worker), 1);
    answer_redis(); /* Nobody's any more. */
    CHECK_INT(job->settled, FAKE_OPEN);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    fake_job_destroy(job);
    teardown();
}

TEST(a_redis_that_is_away_or_answers_errors_is_a_miss)
{
    setup();
    embed_once("why?");
    fake_redis_refusal = -SL_ECONN;
    struct sl_job *job = ask("why?");
    CHECK_INT(fake_call_count(worker), 1);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    fake_job_destroy(job);
    fake_redis_refusal = 0;
    job = fake_job_create(worker, "why?");
    fake_prepare(job);
    while (fake_redis_open() > 0) {
        fake_redis_answer(-SL_ETIMEDOUT);
    }
    fake_start(job);
    pass(0);
    CHECK_INT(fake_call_count(worker), 2);
    fake_call_end(fake_call(worker, 1), 0, 200, ONE);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    fake_job_destroy(job);
    teardown();
}

TEST(a_job_that_does_not_start_after_all_leaves_its_look_up)
{
    setup();
    embed_once("why?");
    struct sl_job *job = fake_job_create(worker, "why?");
    fake_prepare(job);
    embed_stage.unprepare(job);
    fake_job_destroy(job); /* Parked, or given back: its memory is gone when the answer comes. */
    answer_redis();
    teardown();
}

TEST(a_vector_of_another_dimension_or_text_is_not_taken)
{
    setup();
    embed_once("why?");
    struct sl_job *job = ask("why not?");
    fake_call_end(fake_call(worker, 0), 0, 200, ONE_OF_THREE); /* The model was exchanged. */
    CHECK_INT(job->settled, FAKE_FORWARDED);
    fake_job_destroy(job);
    fake_forget_calls(worker);
    job = ask("why?");
    CHECK_INT(fake_call_count(worker), 1);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE_OF_THREE);
    fake_job_destroy(job);
    fake_forget_calls(worker);
    pass(5);
    answer_redis();
    fake_redis_set(0, fake_redis_value(1)); /* As two texts of one slot. */
    job = ask("why?");
    CHECK_INT(fake_call_count(worker), 1);
    fake_cancel(job);
    fake_job_destroy(job);
    teardown();
}

TEST(keys_are_as_many_as_were_configured)
{
    char question[16];
    setup();
    for (int i = 0; i < 300; i++) {
        snprintf(question, sizeof(question), "q%d", i);
        struct sl_job *job = ask(question);
        fake_call_end(fake_call(worker, 0), 0, 200, ONE);
        fake_job_destroy(job);
        fake_forget_calls(worker);
        pass(5);
        answer_redis();
    }
    CHECK(fake_redis_keys() > 30 && fake_redis_keys() <= 50); /* The other half is for chunks. */
    for (size_t i = 0; i < fake_redis_keys(); i++) {
        int slot = -1;
        CHECK(sscanf(fake_redis_key(i), "sluice:embedding:%d", &slot) == 1);
        CHECK(slot >= 0 && slot < 50);
    }
    teardown();
}

TEST(what_redis_does_not_take_in_is_not_heaped_up)
{
    char question[16];
    setup();
    struct sl_job *jobs[32];
    for (int round = 0; round < 30; round++) {
        for (size_t i = 0; i < 32; i++) {
            snprintf(question, sizeof(question), "%zu", i);
            jobs[i] = fake_job_create(worker, question);
            fake_start(jobs[i]); /* As if Redis had not answered the look-up. */
        }
        pass(0);
        struct sl_buf body;
        sl_buf_init(&body, 1 << 20);
        sl_buf_append_text(&body, "{\"data\":[");
        for (int i = 0; i < 32; i++) {
            sl_buf_printf(&body, "%s{\"index\":%d,\"embedding\":[1,2]}", i > 0 ? "," : "", i);
        }
        sl_buf_append(&body, "]}", 3);
        fake_call_end(fake_call(worker, 0), 0, 200, body.data);
        sl_buf_fini(&body);
        for (size_t i = 0; i < 32; i++) {
            CHECK_INT(jobs[i]->settled, FAKE_FORWARDED);
            fake_job_destroy(jobs[i]);
        }
        fake_forget_calls(worker);
        pass(5);
    }
    CHECK_INT(fake_redis_open(), 512); /* Of 960. */
    teardown();
}

/* --- chunks --- */

TEST(chunks_that_were_embedded_lately_need_no_call)
{
    static struct sl_span texts[] = {{"one", 3}, {"two", 3}};
    setup();
    struct sl_job *job = document(texts, 1);
    fake_start(job);
    answer_redis();
    pass(20);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE);
    CHECK_INT(job->settled, FAKE_DONE);
    fake_job_destroy(job);
    pass(5);
    answer_redis();
    CHECK(fake_redis_keys() == 1 && strtol(fake_redis_key(0) + 17, NULL, 10) >= 50);

    job = document(texts, 2); /* One of them. */
    fake_start(job);
    answer_redis();
    pass(20);
    CHECK_INT(fake_call_count(worker), 2);
    CHECK(strstr(fake_call(worker, 1)->body.data, "[\"two\"]") != NULL);
    fake_call_end(fake_call(worker, 1), 0, 200, "{\"data\":[{\"index\":0,\"embedding\":[3,4]}]}");
    CHECK_INT(job->settled, FAKE_DONE);
    CHECK(job->batch.vectors[0] == 1.0F && job->batch.vectors[3] == 4.0F);
    fake_job_destroy(job);
    pass(5);
    answer_redis();

    job = document(texts, 2); /* Both. */
    fake_start(job);
    answer_redis();
    CHECK_INT(job->settled, FAKE_DONE);
    CHECK(job->batch.vectors[0] == 1.0F && job->batch.vectors[3] == 4.0F && job->batch.dim == 2);
    CHECK_INT(fake_call_count(worker), 2);
    fake_job_destroy(job);
    CHECK(has_metric("sluice_embed_cache_total{kind=\"chunk\",result=\"hit\"} 3\n"));
    teardown();
}

TEST(chunks_are_made_again_when_the_model_was_exchanged)
{
    static struct sl_span texts[] = {{"one", 3}, {"two", 3}};
    setup();
    struct sl_job *job = document(texts, 1);
    fake_start(job);
    answer_redis();
    pass(20);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE);
    fake_job_destroy(job);
    pass(5);
    answer_redis();
    job = document(texts, 2);
    fake_start(job);
    answer_redis();
    pass(20);
    fake_call_end(fake_call(worker, 1), 0, 200, ONE_OF_THREE); /* Of "two". */
    CHECK_INT(job->settled, FAKE_OPEN);
    pass(20);
    CHECK(strstr(fake_call(worker, 2)->body.data, "[\"one\"]") != NULL);
    fake_call_end(fake_call(worker, 2), 0, 200, ONE_OF_THREE);
    CHECK(job->settled == FAKE_DONE && job->batch.dim == 3 && job->batch.failure.len == 0);
    CHECK(job->batch.vectors[0] == 1.0F && job->batch.vectors[5] == 3.0F);
    fake_job_destroy(job);
    teardown();
}

TEST(a_batch_that_is_looked_up_in_several_steps_can_be_cancelled_in_between)
{
    static struct sl_span texts[100];
    setup();
    for (size_t i = 0; i < 100; i++) {
        texts[i] = SL_SPAN("the same");
    }
    struct sl_job *job = document(texts, 100), *cancelled = document(texts, 100);
    fake_start(job);
    fake_start(cancelled);
    fake_redis_answer(0);
    fake_redis_answer(0);
    fake_cancel(cancelled);
    fake_job_destroy(cancelled);
    size_t steps = fake_redis_sent();
    answer_redis();
    CHECK_INT(steps + 2, fake_redis_sent()); /* 32 keys a step. */
    pass(20);
    CHECK_INT(fake_call_count(worker), 4);
    fake_cancel(job);
    fake_job_destroy(job);
    teardown();
}

/* --- entries --- */

TEST(only_whole_vectors_of_numbers_are_read)
{
    struct embed_key key, other;
    unsigned char entry[SL_DIGEST_SIZE + 12];
    const float numbers[3] = {1.5F, -2, NAN};
    float vector[3];
    memset(key.digest, 7, sizeof(key.digest));
    memset(other.digest, 7, sizeof(other.digest));
    other.digest[31] = 8;
    memcpy(entry, key.digest, sizeof(key.digest));
    memcpy(entry + sizeof(key.digest), numbers,
           sizeof(numbers)); /* This machine is one of those. */
    struct sl_span whole = {(const char *)entry, sizeof(entry) - 4},
                   all = {whole.data, sizeof(entry)};
    CHECK(embed_cache_read(whole, &key, 2, vector) && vector[0] == 1.5F && vector[1] == -2);
    CHECK(!embed_cache_read(whole, &other, 2, vector));
    CHECK(!embed_cache_read(whole, &key, 1, vector) && !embed_cache_read(whole, &key, 3, vector));
    CHECK(!embed_cache_read(all, &key, 3, vector)); /* The last is no number. */
    CHECK(!embed_cache_read((struct sl_span){whole.data, 31}, &key, 2, vector));
    CHECK(!embed_cache_read((struct sl_span){whole.data, 32}, &key, 0, vector));
    CHECK(!embed_cache_read((struct sl_span){whole.data, whole.len - 1}, &key, 2, vector));
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        CASE(a_question_that_was_embedded_lately_needs_no_call),
        CASE(an_answer_that_is_late_is_not_waited_for),
        CASE(a_redis_that_is_away_or_answers_errors_is_a_miss),
        CASE(a_job_that_does_not_start_after_all_leaves_its_look_up),
        CASE(a_vector_of_another_dimension_or_text_is_not_taken),
        CASE(keys_are_as_many_as_were_configured),
        CASE(what_redis_does_not_take_in_is_not_heaped_up),
        CASE(chunks_that_were_embedded_lately_need_no_call),
        CASE(chunks_are_made_again_when_the_model_was_exchanged),
        CASE(a_batch_that_is_looked_up_in_several_steps_can_be_cancelled_in_between),
        CASE(only_whole_vectors_of_numbers_are_read),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
