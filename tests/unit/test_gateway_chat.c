/* OpenAI's chat: requests read into queries, table by table, and the objects that are answered. */
#include "common/json.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"
#include "workers/gateway/chat_request.h"
#include "workers/gateway/chat_write.h"

enum { HISTORY = 20, ARENA_MAX = 4 << 20 };

static struct sl_arena arena;
static struct chat_request chat;
static struct sl_fault fault;

static int read_with(const char *body, const struct chat_headers *headers)
{
    sl_arena_fini(&arena);
    sl_arena_init(&arena, ARENA_MAX);
    memset(&fault, 0xee, sizeof(fault));
    size_t len = strlen(body);
    char *copy = malloc(len + 1); /* The request must not need it afterwards. */
    CHECK(copy != NULL);
    memcpy(copy, body, len);
    int rv =
        chat_request_read((struct sl_span){copy, len}, headers, HISTORY, &arena, &chat, &fault);
    memset(copy, 'x', len);
    free(copy);
    return rv;
}

static int read_body(const char *body)
{
    const struct chat_headers none = {{0}, {0}, {0}};
    return read_with(body, &none);
}

/* A body with these members besides a model and a question. */
static int read_with_member(const char *member)
{
    char body[1024];
    snprintf(body, sizeof(body),
             "{\"model\":\"sluice\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]%s%s}",
             member[0] != '\0' ? "," : "", member);
    return read_body(body);
}

static int read_messages(const char *messages)
{
    char body[4096];
    snprintf(body, sizeof(body), "{\"model\":\"sluice\",\"messages\":[%s]}", messages);
    return read_body(body);
}

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define MODEL(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"

static void check_history(const char *want)
{
    char got[1024] = "";
    for (size_t i = 0; i < chat.query.history_len; i++) {
        const struct sl_turn *turn = &chat.query.history[i];
        size_t at = strlen(got);
        snprintf(got + at, sizeof(got) - at, "%s%c:" SL_SPAN_FMT, i > 0 ? " " : "",
                 turn->assistant ? 'a' : 'u', SL_SPAN_ARG(turn->content));
    }
    CHECK_STR(got, want);
}

TEST(the_last_user_message_is_the_question)
{
    static const struct {
        const char *messages, *question, *history;
    } rows[] = {
        {USER("q"), "q", ""},
        {"{\"role\":\"system\",\"content\":\"be brief\"}," USER("q"), "q", ""},
        {"{\"role\":\"developer\",\"content\":\"be brief\"}," USER("q"), "q", ""},
        {USER("a") "," MODEL("b") "," USER("c"), "c", "u:a a:b"},
        {USER("a") "," USER("b") "," USER("c"), "c", "u:a u:b"},
        {USER("a") "," MODEL("b"), "a", ""},
        {USER("a") ",{\"role\":\"assistant\",\"content\":null}," USER("c"), "c", "u:a"},
        {USER("a") ",{\"role\":\"assistant\"}," USER("c"), "c", "u:a"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"text\","
         "\"text\":\"y\"}]}",
         "x\ny", ""},
        {"{\"role\":\"user\",\"name\":\"Ada\",\"content\":\"q\"}", "q", ""},
        /* 20 bytes of history: whole messages, the newest. */
        {USER("0123456789") "," MODEL("0123456789") "," USER("q"), "q",
         "u:0123456789 a:0123456789"},
        {USER("0123456789") "," MODEL("01234567890") "," USER("q"), "q", "a:01234567890"},
        {USER("a") "," MODEL("012345678901234567890") "," USER("q"), "q", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_INT(read_messages(rows[i].messages), 0);
        CHECK(sl_span_is(chat.query.query, rows[i].question));
        check_history(rows[i].history);
    }
}

TEST(messages_that_are_no_question_are_refused_by_their_place)
{
    static const struct {
        const char *messages, *param;
    } rows[] = {
        {"", "messages"},
        {MODEL("a"), "messages"},
        {"{\"role\":\"system\",\"content\":\"a\"}", "messages"},
        {USER(""), "messages"},
        {USER("a") ",{\"role\":\"tool\",\"content\":\"b\"}", "messages[1].role"},
        {USER("a") ",{\"content\":\"b\"}", "messages[1].role"},
        {"7", "messages[0].role"},
        {"{\"role\":\"user\"}", "messages[0].content"},
        {"{\"role\":\"user\",\"content\":7}", "messages[0].content"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":"
         "\"image_url\",\"image_url\":{\"url\":\"u\"}}]}",
         "messages[0].content[1]"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}", "messages[0].content[0]"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}", "messages[0].content[0]"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_INT(read_messages(rows[i].messages), -SL_EINVAL);
        CHECK_STR(fault.param, rows[i].param);
        CHECK(fault.message[0] != '\0');
    }
}

TEST(a_question_that_is_too_long_is_a_fault_of_messages)
{
    size_t max = SL_QUERY_MAX + 200;
    char *body = malloc(max);
    CHECK(body != NULL);
    int at =
        snprintf(body, max, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(body + at, 'a', SL_QUERY_MAX + 1);
    snprintf(body + at + SL_QUERY_MAX + 1, max - (size_t)at - SL_QUERY_MAX - 1, "\"}]}");
    CHECK_INT(read_body(body), -SL_EINVAL);
    CHECK_STR(fault.param, "messages");
    CHECK(strstr(fault.message, "the last message of the user must be ") == fault.message);
    free(body);
}

TEST(fields_that_cannot_be_honoured_are_refused_by_name)
{
    static const struct {
        const char *member, *param;
    } rows[] = {
        {"\"frob\":1", "frob"},
        {"\"n\":2", "n"},
        {"\"tools\":[{\"type\":\"function\"}]", "tools"},
        {"\"functions\":[{}]", "functions"},
        {"\"tool_choice\":\"auto\"", "tool_choice"},
        {"\"logprobs\":true", "logprobs"},
        {"\"top_logprobs\":3", "top_logprobs"},
        {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
        {"\"audio\":{}", "audio"},
        {"\"web_search_options\":{}", "web_search_options"},
        {"\"stream\":1", "stream"},
        {"\"stream_options\":{\"include_usage\":true}", "stream_options"},
        {"\"stream\":true,\"stream_options\":{\"include_usage\":1}",
         "stream_options.include_usage"},
        {"\"max_tokens\":0", "max_tokens"},
        {"\"max_tokens\":\"7\"", "max_tokens"},
        {"\"max_completion_tokens\":99999999", "max_completion_tokens"},
        {"\"temperature\":2.5", "temperature"},
        {"\"temperature\":\"hot\"", "temperature"},
        {"\"top_p\":1.5", "top_p"},
        {"\"presence_penalty\":-3", "presence_penalty"},
        {"\"seed\":1.5", "seed"},
        {"\"user\":7", "user"},
        {"\"stop\":[1]", "stop"},
        {"\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]", "stop"},
        {"\"sluice\":7", "sluice"},
        {"\"sluice\":{\"query\":\"x\"}", "sluice.query"},
        {"\"sluice\":{\"top_n\":0}", "sluice.top_n"},
        {"\"sluice\":{\"filter\":{\"a\":1}}", "sluice.filter"},
        {"\"stream\":true,\"sluice\":{\"on_worker_lost\":\"restart\"}", "sluice.on_worker_lost"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_INT(read_with_member(rows[i].member), -SL_EINVAL);
        CHECK_STR(fault.param, rows[i].param);
        CHECK(strncmp(fault.message, fault.param, strlen(fault.param)) == 0);
    }
    CHECK_INT(read_body("{\"messages\":[" USER("q") "]}"), -SL_EINVAL);
    CHECK_STR(fault.param, "model");
    CHECK_INT(read_body("{\"model\":\"m\"}"), -SL_EINVAL);
    CHECK_STR(fault.param, "messages");
}

TEST(fields_that_ask_for_nothing_or_mean_nothing_here_are_ignored)
{
    static const char *const members[] = {
        "\"n\":1",
        "\"tools\":[],\"functions\":[],\"tool_choice\":\"none\",\"function_call\":\"none\"",
        "\"logprobs\":false,\"top_logprobs\":0,\"modalities\":[\"text\"]",
        "\"tools\":null,\"audio\":null,\"stop\":null,\"temperature\":null,\"stream\":null",
        "\"store\":true,\"metadata\":{\"a\":\"b\"},\"service_tier\":\"auto\"",
        "\"parallel_tool_calls\":true,\"prompt_cache_key\":\"k\",\"safety_identifier\":\"s\"",
    };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        CHECK_INT(read_with_member(members[i]), 0);
        CHECK_INT(chat.query.extra.len, 0);
        CHECK(!chat.stream);
        CHECK(chat.query.temperature == 0);
    }
}

TEST(fields_for_the_model_pass_as_they_are)
{
    CHECK_INT(
        read_with_member("\"seed\":7,\"stop\":[\"\\u0041\",\"b\"],\"user\":\"u\",\"top_p\":0.5,"
                         "\"logit_bias\":{\"50256\":-100},\"store\":true,"
                         "\"response_format\":{\"type\":\"text\"}"),
        0);
    CHECK(sl_span_is(chat.query.extra,
                     "{\"stop\":[\"A\",\"b\"],\"seed\":7,\"user\":\"u\",\"top_p\":0.5,"
                     "\"logit_bias\":{\"50256\":-100},\"response_format\":{\"type\":\"text\"}}"));
    CHECK(!chat.query.json);
}

TEST(limits_and_temperature_are_the_querys)
{
    CHECK_INT(read_with_member("\"max_tokens\":9,\"temperature\":0.25"), 0);
    CHECK_INT(chat.query.max_tokens, 9);
    CHECK(chat.query.temperature == 0.25);
    CHECK(sl_span_is(chat.query.model, "sluice"));
    CHECK_INT(read_with_member("\"max_tokens\":9,\"max_completion_tokens\":11"), 0);
    CHECK_INT(chat.query.max_tokens, 11);
    CHECK_INT(read_with_member("\"stream\":true,\"stream_options\":{\"include_usage\":true}"), 0);
    CHECK(chat.stream && chat.include_usage);
    CHECK_INT(read_with_member("\"stream\":true"), 0);
    CHECK(chat.stream && !chat.include_usage);
}

TEST(query_fields_come_in_the_body_or_as_headers)
{
    const struct chat_headers headers = {.collection = SL_SPAN("h"),
                                         .timeout_ms = SL_SPAN("1500"),
                                         .on_disconnect = SL_SPAN("grace:3")};
    const char *plain = "{\"model\":\"m\",\"messages\":[" USER("q") "]}";
    const char *body = "{\"model\":\"m\",\"messages\":[" USER(
        "q") "],\"sluice\":{\"collection\":"
             "\"b\",\"top_n\":3,\"timeout_ms\":null,\"filter\":{\"k\":\"v\"}}}";
    CHECK_INT(read_with(plain, &headers), 0);
    CHECK(sl_span_is(chat.query.collection, "h"));
    CHECK_INT(chat.query.timeout_ms, 1500);
    CHECK_INT(chat.query.on_disconnect, SL_DISCONNECT_GRACE);
    CHECK_INT(chat.query.grace_ms, 3000);
    CHECK_INT(read_with(body, &headers), 0);
    CHECK(sl_span_is(chat.query.collection, "b")); /* The body wins. */
    CHECK_INT(chat.query.timeout_ms, 1500);
    CHECK_INT(chat.query.top_n, 3);
    CHECK(sl_span_is(chat.query.filter[0].value, "v"));
}

TEST(wrong_headers_are_faults_of_the_header)
{
    const char *plain = "{\"model\":\"m\",\"messages\":[" USER("q") "]}";
    static const struct {
        struct chat_headers headers;
        const char *param;
    } rows[] = {
        {{.timeout_ms = {"soon", 4}}, "sluice-timeout-ms"},
        {{.timeout_ms = {"1", 1}}, "sluice-timeout-ms"},
        {{.collection = {"", 0}}, "sluice-collection"},
        {{.on_disconnect = {"stay", 4}}, "sluice-on-disconnect"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_INT(read_with(plain, &rows[i].headers), -SL_EINVAL);
        CHECK_STR(fault.param, rows[i].param);
    }
}

TEST(what_is_no_json_object_says_where)
{
    CHECK_INT(read_body("{\"model\": nope}"), -SL_EBADMSG);
    CHECK(strstr(fault.message, "10") != NULL);
    CHECK_INT(read_body("[]"), -SL_EBADMSG);
    CHECK_INT(read_body(""), -SL_EBADMSG);
    CHECK_STR(fault.param, "");
}

TEST(each_allocation_may_fail)
{
    const struct chat_headers headers = {.collection = SL_SPAN("h")};
    const struct sl_span body = sl_span_of(
        "{\"model\":\"m\",\"seed\":7,\"sluice\":{\"filter\":{\"k\":\"v\"}},\"messages\":[" USER(
            "a") "," MODEL("b") ",{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q"
                                "\"}]}]}");
    for (long k = 1;; k++) {
        sl_arena_fini(&arena);
        sl_arena_init(&arena, ARENA_MAX);
        sl_test_fail_any_alloc(k);
        int rv = chat_request_read(body, &headers, HISTORY, &arena, &chat, &fault);
        if (!sl_test_alloc_failed()) {
            CHECK_INT(rv, 0);
            break;
        }
        CHECK_INT(rv, -SL_ENOMEM);
    }
}

/* --- objects --- */

static const struct chat_head head = {.id = {"q-1", 3}, .created_s = 1700000000, .model = {"m", 1}};
static struct sl_buf out;

static void check_object(const char *want)
{
    CHECK_INT(sl_buf_error(&out), 0);
    sl_buf_append(&out, "", 1);
    CHECK_STR(out.data, want);
    sl_buf_clear(&out);
}

TEST(chunks_are_openais)
{
    struct chat_head with_usage = head;
    const struct sl_usage usage = {.prompt_tokens = 3, .completion_tokens = 4};
    with_usage.include_usage = true;
    sl_buf_init(&out, 4096);
#define CHUNK                                                                                      \
    "{\"id\":\"chatcmpl-q-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"        \
    "\"model\":\"m\",\"choices\":["
    chat_write_first(&out, &head, SL_SPAN("[{\"n\":1}]"));
    check_object(CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                       "\"logprobs\":null,\"finish_reason\":null}],\"citations\":[{\"n\":1}]}");
    chat_write_delta(&out, &head, SL_SPAN("a\"\n"));
    check_object(CHUNK "{\"index\":0,\"delta\":{\"content\":\"a\\\"\\n\"},\"logprobs\":null,"
                       "\"finish_reason\":null}]}");
    chat_write_finish(&out, &head, SL_SPAN("length"));
    check_object(CHUNK
                 "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}]}");
    chat_write_finish(&out, &with_usage, SL_SPAN(""));
    check_object(CHUNK "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                       "\"usage\":null}");
    chat_write_usage(&out, &with_usage, &usage);
    check_object(CHUNK "],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,"
                       "\"total_tokens\":7}}");
    sl_buf_fini(&out);
}

TEST(the_whole_answer_is_openais)
{
    const struct sl_result result = {.answer = SL_SPAN("hello"),
                                     .finish_reason = SL_SPAN("stop"),
                                     .usage = {.prompt_tokens = 1, .completion_tokens = 2}};
    sl_buf_init(&out, 4096);
    chat_write_answer(&out, &head, &result, SL_SPAN("[]"));
    check_object("{\"id\":\"chatcmpl-q-1\",\"object\":\"chat.completion\",\"created\":1700000000,"
                 "\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                 "\"content\":\"hello\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":"
                 "\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,"
                 "\"total_tokens\":3},\"citations\":[]}");
    sl_buf_fini(&out);
}

TEST(models_are_the_alias_and_the_configured_ones)
{
    sl_buf_init(&out, 4096);
#define LISTED(name)                                                                               \
    "{\"id\":\"" name "\",\"object\":\"model\",\"created\":5,\"owned_by\":\"sluice\"}"
    chat_write_models(&out, "", 5);
    check_object("{\"object\":\"list\",\"data\":[" LISTED("sluice") "]}");
    chat_write_models(&out, "a, b,", 5);
    check_object(
        "{\"object\":\"list\",\"data\":[" LISTED("sluice") "," LISTED("a") "," LISTED("b") "]}");
    sl_buf_fini(&out);
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const struct test_case cases[] = {
        CASE(the_last_user_message_is_the_question),
        CASE(messages_that_are_no_question_are_refused_by_their_place),
        CASE(a_question_that_is_too_long_is_a_fault_of_messages),
        CASE(fields_that_cannot_be_honoured_are_refused_by_name),
        CASE(fields_that_ask_for_nothing_or_mean_nothing_here_are_ignored),
        CASE(fields_for_the_model_pass_as_they_are),
        CASE(limits_and_temperature_are_the_querys),
        CASE(query_fields_come_in_the_body_or_as_headers),
        CASE(wrong_headers_are_faults_of_the_header),
        CASE(what_is_no_json_object_says_where),
        CASE(each_allocation_may_fail),
        CASE(chunks_are_openais),
        CASE(the_whole_answer_is_openais),
        CASE(models_are_the_alias_and_the_configured_ones),
        {NULL, NULL},
    };
    int failed = run_tests(cases, argc, argv);
    sl_arena_fini(&arena);
    return failed;
}
