/*
 * Idempotency keys: what the second request with a key gets, while the first one runs and after,
 * with a pipeline that the test plays. What other gateways would have left in Redis the test puts
 * there.
 */
#include "tests/support/gateway_fixture.h"
#include "tests/support/soon.h"

#define STREAM "Accept: text/event-stream\r\n"
#define BODY "{\"query\":\"what?\"}"
#define CHAT(more)                                                                                 \
    "{\"model\":\"sluice\",\"messages\":[{\"role\":\"user\",\"content\":\"what?\"}]" more "}"

static struct peer peer, second;

static void ask(struct peer *by, const char *key, const char *headers, const char *body)
{
    char all[512];
    bool is_chat = strstr(body, "messages") != NULL;
    snprintf(all, sizeof(all), "Idempotency-Key: %s\r\n%s", key, headers);
    sl_buf_clear(&by->in);
    gateway_post(by, is_chat ? "/v1/chat/completions" : "/v1/query", all, body);
}

TEST(a_second_request_gets_the_answer_of_the_first)
{
    gateway_start_pair(&peer, &second);
    ask(&peer, "k-1", STREAM, BODY);
    struct asked *asked = gateway_asked(1);
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one ");
    GATEWAY_WAIT(peer_has(&peer, "\"text\":\"one \""));
    ask(&second, "k-1", "", BODY); /* As one object: that is a matter of the caller. */
    emit_delta(asked, 1, 1, 20, "two");
    GATEWAY_WAIT(peer_has(&peer, "\"text\":\"two\""));
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]") && peer_has(&second, "\"total_ms\""));
    CHECK(peer_has(&second, "\"query\":\"what?\",\"answer\":\"one two\""));
    CHECK(peer_has(&second, "\"text\":\"a passage\""));
    CHECK(peer_has(&second, asked->id));
    ask(&peer, "k-1", STREAM, BODY); /* And after the end. */
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "id: 0:0\n") && peer_has(&peer, "id: 1:2\nevent: done"));
    CHECK(peer_has(&peer, asked->id));
    ask(&peer, "k-2", STREAM, BODY); /* Another key is another query. */
    emit_done(gateway_asked(2), 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    gateway_stop_pair(&peer, &second);
}

TEST(chat_answers_are_the_same_objects_again)
{
    gateway_start_pair(&peer, &second);
    ask(&peer, "k", "", CHAT(""));
    struct asked *asked = gateway_asked(1);
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one");
    ask(&second, "k", "", CHAT(""));
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "\"finish_reason\":\"stop\"") &&
                 peer_has(&second, "\"finish_reason\":\"stop\""));
    CHECK_STR(strstr(peer_text(&peer), "\r\n\r\n"), strstr(peer_text(&second), "\r\n\r\n"));
    CHECK(peer_has(&second, "\"citations\":[{\"n\":1,"));
    ask(&second, "stream", "", CHAT(",\"stream\":true"));
    asked = gateway_asked(2);
    emit_delta(asked, 1, 0, 20, "two");
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    ask(&peer, "stream", "", CHAT(",\"stream\":true"));
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "\"delta\":{\"content\":\"two\"}"));
    gateway_stop_pair(&peer, &second);
}

TEST(another_request_with_the_key_is_a_conflict)
{
    static const struct {
        const char *headers, *body;
    } others[] = {
        {"", "{\"query\":\"why?\"}"}, {"sluice-collection: other\r\n", BODY}, {"", CHAT("")}};
    gateway_start_pair(&peer, &second);
    ask(&peer, "k", STREAM, BODY);
    struct asked *asked = gateway_asked(1);
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ask(&second, "k", others[i].headers, others[i].body);
        GATEWAY_WAIT(peer_has(&second, "\"code\":\"idempotency_conflict\""));
        CHECK(peer_has(&second, "HTTP/1.1 409 "));
        CHECK(peer_has(&second, "\"type\":\"invalid_request_error\""));
    }
    emit_done(asked, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK_INT(gateway.asked_count, 1);
    gateway_stop_pair(&peer, &second);
}

TEST(keys_are_checked)
{
    char longest[256];
    memset(longest, 'k', 255);
    longest[255] = '\0';
    const char *const bad[] = {"", "two words", "caf\xc3\xa9"};
    gateway_start_pair(&peer, &second);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ask(&peer, bad[i], "", BODY);
        GATEWAY_WAIT(peer_has(&peer, "\"param\":\"Idempotency-Key\""));
        CHECK(peer_has(&peer, "HTTP/1.1 400 "));
    }
    ask(&peer, longest, STREAM, BODY);
    emit_done(gateway_asked(1), 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    gateway_stop_pair(&peer, &second);
}

TEST(the_last_of_several_callers_cancels_and_frees_the_key)
{
    gateway_start_pair(&peer, &second);
    ask(&peer, "k", STREAM, BODY);
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    GATEWAY_WAIT(peer_has(&peer, "one"));
    ask(&second, "k", STREAM, BODY);
    GATEWAY_WAIT(peer_has(&second, "one"));
    gateway_reconnect(&peer);
    emit_delta(asked, 1, 1, 20, "two");
    GATEWAY_WAIT(peer_has(&second, "two"));
    CHECK(!gateway_cancelled(asked));
    gateway_reconnect(&second);
    GATEWAY_WAIT(gateway_cancelled(asked));
    emit_error(asked, 1, 2, 20, SL_QERR_CANCELLED, "cancelled");
    ask(&peer, "k", STREAM, BODY);
    emit_done(gateway_asked(2), 1, 0, 30);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    gateway_stop_pair(&peer, &second);
}

/* The key k as it was before Redis heard that its job was produced. */
static void make_open(void)
{
    GATEWAY_WAIT(strcmp(gateway_redis_get("idem:default:k", "state"), "produced") == 0);
    gateway_redis_put("idem:default:k", "state", "open");
}

TEST(a_key_that_is_not_produced_yet_is_waited_for)
{
    gateway_start_pair(&peer, &second);
    ask(&peer, "k", STREAM, BODY);
    struct asked *asked = gateway_asked(1);
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    make_open();
    ask(&second, "k", STREAM, BODY);
    MEANWHILE(gateway.loop, 500);
    CHECK(!peer_has(&second, "HTTP"));
    gateway_redis_put("idem:default:k", "state", "produced");
    emit_done(asked, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK(peer_has(&second, asked->id));
    make_open();
    ask(&second, "k", STREAM, BODY);
    MEANWHILE(gateway.loop, 500);
    gateway_redis_put("idem:default:k", "id", NULL); /* The first one failed. */
    GATEWAY_WAIT(peer_has(&second, "HTTP/1.1 503 "));
    CHECK(peer_has(&second, "retry-after: 1\r\n"));
    ask(&second, "k", STREAM, BODY); /* It has left nothing behind. */
    emit_done(gateway_asked(2), 1, 0, 30);
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    gateway_stop_pair(&peer, &second);
}

TEST(the_job_of_a_gateway_that_died_is_produced_again)
{
    gateway_start_pair(&peer, &second);
    ask(&peer, "k", STREAM, BODY);
    struct asked *first = gateway_asked(1);
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    emit_done(first, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    char id[65], place[96];
    snprintf(place, sizeof(place), "%d 0 %lld 0", (first->query.reply_partition + 1) % 3,
             (long long)sl_clock_unix_ms() + 30000);
    snprintf(id, sizeof(id), "%s", first->id);
    id[35] = id[35] == '0' ? '1' : '0'; /* A query that nobody has produced. */
    make_open();
    gateway_redis_put("idem:default:k", "gateway", "a-dead-one");
    gateway_redis_put("idem:default:k", "id", id);
    gateway_redis_put("idem:default:k", "place", place);
    ask(&second, "k", STREAM, BODY);
    struct asked *asked = gateway_asked(2);
    CHECK_STR(asked->id, id);
    CHECK_INT(asked->query.reply_partition, (first->query.reply_partition + 1) % 3);
    emit_delta(asked, 1, 0, 20, "one");
    GATEWAY_WAIT(peer_has(&second, "one"));
    CHECK(peer_has(&second, id));
    ask(&peer, "k", STREAM, BODY); /* Which is known to be produced now. */
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&second, "[DONE]") && peer_has(&peer, "[DONE]"));
    CHECK_INT(gateway.asked_count, 2);
    gateway_stop_pair(&peer, &second);
}

TEST(without_redis_only_requests_with_a_key_are_refused)
{
    gateway_start_pair(&peer, &second);
    redis_fixture_pause(gateway.redis);
    ask(&second, "k", STREAM, BODY);
    gateway_post(&peer, "/v1/query", STREAM, BODY);
    emit_done(gateway_asked(1), 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    SOON(gateway.loop, peer_has(&second, "HTTP/1.1 503 "));
    CHECK(peer_has(&second, "retry-after: 1\r\n"));
    redis_fixture_resume(gateway.redis);
    CHECK_INT(gateway.asked_count, 1);
    gateway_stop_pair(&peer, &second);
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const struct test_case cases[] = {
        CASE(a_second_request_gets_the_answer_of_the_first),
        CASE(chat_answers_are_the_same_objects_again),
        CASE(another_request_with_the_key_is_a_conflict),
        CASE(keys_are_checked),
        CASE(the_last_of_several_callers_cancels_and_frees_the_key),
        CASE(a_key_that_is_not_produced_yet_is_waited_for),
        CASE(the_job_of_a_gateway_that_died_is_produced_again),
        CASE(without_redis_only_requests_with_a_key_are_refused),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
