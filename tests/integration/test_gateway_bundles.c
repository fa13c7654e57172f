/*
 * Events of several queries in one record of a gateway's replies, with a pipeline that the test
 * plays: each caller gets what is its own, whole and once, live and read again.
 */
#include "tests/support/gateway_fixture.h"

static struct peer peer, second;

static struct asked *ask(struct peer *by)
{
    size_t n = gateway.asked_count + 1;
    gateway_post(by, "/v1/query", "Accept: text/event-stream\r\n",
                 "{\"query\":\"what?\",\"on_disconnect\":\"continue\"}");
    return gateway_asked(n);
}

/* header: a line that tells where from; "": the beginning. */
static void resume(struct peer *by, const char *id, const char *header)
{
    char request[512];
    snprintf(request, sizeof(request), "GET /v1/queries/%s/events HTTP/1.1\r\nHost: a\r\n%s\r\n",
             id, header);
    peer_send_text(by, request);
}

/* The texts that the peer got, in order: "[one][two]". */
static const char *texts(struct peer *of)
{
    static char all[512];
    size_t len = 0;
    all[0] = '\0';
    peer_read(of);
    for (const char *at = strstr(peer_text(of), "\"text\":\""); at != NULL;
         at = strstr(at + 1, "\"text\":\"")) {
        if (strncmp(at + 8, "a passage", 9) != 0) { /* The sources. */
            len += (size_t)snprintf(all + len, sizeof(all) - len, "[%.*s]",
                                    (int)strcspn(at + 8, "\""), at + 8);
        }
    }
    return all;
}

/* A query that this gateway has nothing to do with. */
static struct asked foreign(const struct asked *real)
{
    struct asked asked = *real;
    asked.query.id = SL_SPAN("of.another");
    return asked;
}

TEST(each_caller_gets_its_own_of_a_bundle_in_order)
{
    gateway_start_pair(&peer, &second);
    struct asked *one = ask(&peer), *two = ask(&second);
    struct asked other = foreign(one);
    CHECK(one->query.reply_bundles && two->query.reply_bundles);
    emit_bundle_begin();
    emit_delta(&other, 1, 0, 20, "none");
    emit_delta(one, 1, 0, 20, "a");
    emit_delta(two, 1, 0, 21, "b");
    emit_delta(one, 1, 1, 20, "c");
    emit_done(&other, 1, 1, 20);
    emit_bundle_end(one, SL_SPAN(""));
    emit_done(one, 1, 2, 20);
    emit_bundle_begin(); /* What comes behind an end is nobody's. */
    emit_delta(one, 1, 3, 20, "late");
    emit_delta(two, 1, 1, 21, "d");
    emit_bundle_end(one, SL_SPAN(""));
    emit_done(two, 1, 2, 21);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]") && peer_has(&second, "[DONE]"));
    CHECK_STR(texts(&peer), "[a][c]");
    CHECK_STR(texts(&second), "[b][d]");
    gateway_stop_pair(&peer, &second);
}

TEST(a_caller_whose_end_is_in_a_bundle_takes_nothing_from_the_others)
{
    gateway_start_pair(&peer, &second);
    struct asked *one = ask(&peer), *two = ask(&second);
    emit_bundle_begin();
    emit_delta(one, 1, 0, 20, "a");
    emit_done(one, 1, 1, 20);
    emit_delta(one, 1, 2, 20, "late");
    emit_delta(two, 1, 0, 21, "b");
    emit_done(two, 1, 1, 21);
    emit_bundle_end(one, SL_SPAN(""));
    GATEWAY_WAIT(peer_has(&peer, "[DONE]") && peer_has(&second, "[DONE]"));
    CHECK_STR(texts(&peer), "[a]");
    CHECK_STR(texts(&second), "[b]");
    gateway_stop_pair(&peer, &second);
}

TEST(what_stands_before_a_tail_that_is_not_readable_is_taken)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask(&peer);
    emit_sources(asked, 10);
    emit_bundle_begin();
    emit_delta(asked, 1, 0, 20, "a");
    emit_bundle_end(asked, SL_SPAN("\xd9\x30"
                                   "abc"));
    GATEWAY_WAIT(peer_has(&peer, "\"a\""));
    GATEWAY_WAIT(gateway_logged("a bundle of events is not readable"));
    emit_delta(asked, 1, 1, 20, "b");
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK_STR(texts(&peer), "[a][b]");
    resume(&second, asked->id, "");
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(texts(&second), "[a][b]");
    gateway_stop_pair(&peer, &second);
}

TEST(a_stream_goes_on_in_the_middle_of_a_bundle)
{
    gateway_start_pair(&peer, &second);
    struct asked *one = ask(&peer), *two = ask(&second);
    emit_sources(one, 10);
    emit_sources(two, 10);
    emit_bundle_begin();
    for (uint32_t i = 0; i < 4; i++) {
        const char *const text[] = {"a", "b", "c", "d"};
        emit_delta(one, 1, i, 20, text[i]);
        emit_delta(two, 1, i, 21, text[i]);
    }
    emit_bundle_end(one, SL_SPAN(""));
    GATEWAY_WAIT(peer_has(&peer, "\"d\"") && peer_has(&second, "\"d\""));
    gateway_reconnect(&peer);
    resume(&peer, one->id, "Last-Event-ID: 1:1\r\n");
    GATEWAY_WAIT(peer_has(&peer, "\"d\""));
    gateway_reconnect(&second); /* Its reader goes back, and the first has had all that. */
    resume(&second, two->id, "Last-Event-ID: 1:2\r\n");
    GATEWAY_WAIT(peer_has(&second, "\"d\""));
    emit_bundle_begin();
    emit_delta(two, 1, 4, 21, "e");
    emit_delta(one, 1, 4, 20, "e");
    emit_bundle_end(one, SL_SPAN(""));
    emit_done(one, 1, 5, 20);
    emit_done(two, 1, 5, 21);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]") && peer_has(&second, "[DONE]"));
    CHECK_STR(texts(&peer), "[c][d][e]");
    CHECK_STR(texts(&second), "[d][e]");
    gateway_stop_pair(&peer, &second);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"each_caller_gets_its_own_of_a_bundle_in_order",
         each_caller_gets_its_own_of_a_bundle_in_order},
        {"a_caller_whose_end_is_in_a_bundle_takes_nothing_from_the_others",
         a_caller_whose_end_is_in_a_bundle_takes_nothing_from_the_others},
        {"what_stands_before_a_tail_that_is_not_readable_is_taken",
         what_stands_before_a_tail_that_is_not_readable_is_taken},
        {"a_stream_goes_on_in_the_middle_of_a_bundle", a_stream_goes_on_in_the_middle_of_a_bundle},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
