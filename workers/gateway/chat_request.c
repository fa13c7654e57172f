/*
 * OpenAI's chat request, read into a query: the last user message is the question, the user's and
 * the model's messages before it are the history. System and developer messages are ignored: the
 * prompt is the pipeline's own.
 *
 * The query is then written as the body that /v1/query takes and read by the same decoder, so that
 * ranges and their messages exist once; only the names of fields are translated back.
 */
#include "workers/gateway/chat_request.h"

#include "workers/gateway/chat_members.h"

#include <stdio.h>

enum { BODY_MAX = 8 << 20 };

struct message {
    bool assistant;
    struct sl_span content;
};

struct reading {
    struct sl_arena *arena;
    struct sl_fault *fault;
    const struct sl_json *root;
    struct message *messages; /* The user's and the model's. */
    size_t count;
    size_t question; /* Index of the last user message. */
    size_t history;  /* Index of the first message that is kept before it. */
};

/* --- messages --- */

/* The texts of an array of parts, each on its own line. */
static int join_parts(struct reading *reading, size_t index, const struct sl_json *parts,
                      struct sl_span *ret)
{
    const struct sl_json *part;
    size_t at = 0, i = 0;
    char param[64];
    struct sl_buf text;
    int rv = 0;
    sl_buf_init(&text, BODY_MAX);
    for (; rv == 0 && sl_json_each(parts, &at, NULL, &part); i++) {
        const struct sl_json *type = chat_member(part, "type"), *piece = chat_member(part, "text");
        if (!chat_is(type, SL_JSON_STRING) || !sl_span_is(sl_json_string(type), "text") ||
            !chat_is(piece, SL_JSON_STRING)) {
            snprintf(param, sizeof(param), "messages[%zu].content[%zu]", index, i);
            rv = chat_refuse(reading->fault, param,
                             "%s must be {\"type\": \"text\", \"text\": ...}: "
                             "images, audio and files are not supported",
                             param);
        } else {
            sl_buf_append_text(&text, i > 0 ? "\n" : "");
            sl_buf_append_span(&text, sl_json_string(piece));
        }
    }
    if (rv == 0) {
        *ret = sl_arena_copy(reading->arena, sl_buf_span(&text));
        rv = sl_buf_error(&text) != 0 ? sl_buf_error(&text) : ret->data == NULL ? -SL_ENOMEM : 0;
    }
    sl_buf_fini(&text);
    return rv;
}

static int read_content(struct reading *reading, size_t index, const struct sl_json *message,
                        bool may_lack, struct sl_span *ret)
{
    const struct sl_json *content = chat_member(message, "content");
    char param[64];
    if (chat_is(content, SL_JSON_STRING)) {
        *ret = sl_json_string(content);
        return 0;
    }
    if (chat_is(content, SL_JSON_ARRAY)) {
        return join_parts(reading, index, content, ret);
    }
    if (content == NULL && may_lack) {
        *ret = SL_SPAN("");
        return 0;
    }
    snprintf(param, sizeof(param), "messages[%zu].content", index);
    return chat_refuse(reading->fault, param, "%s must be a string or an array of text parts",
                       param);
}

static int read_message(struct reading *reading, size_t index, const struct sl_json *value)
{
    static const char *const ignored[] = {"system", "developer"};
    char param[64];
    const struct sl_json *role = chat_member(value, "role");
    struct sl_span name = chat_is(role, SL_JSON_STRING) ? sl_json_string(role) : SL_SPAN("");
    if (sl_span_is(name, ignored[0]) || sl_span_is(name, ignored[1])) {
        return 0;
    }
    struct message *message = &reading->messages[reading->count];
    message->assistant = sl_span_is(name, "assistant");
    if (!message->assistant && !sl_span_is(name, "user")) {
        snprintf(param, sizeof(param), "messages[%zu].role", index);
        return chat_refuse(
            reading->fault, param,
            "%s must be user, assistant, system or developer; tools are not supported", param);
    }
    int rv = read_content(reading, index, value, message->assistant, &message->content);
    reading->question = message->assistant ? reading->question : reading->count;
    reading->count++;
    return rv;
}

static int read_messages(struct reading *reading)
{
    const struct sl_json *messages = chat_member(reading->root, "messages"), *value;
    size_t at = 0, index = 0;
    bool asked = false;
    int rv = 0;
    if (messages == NULL) {
        return chat_refuse(reading->fault, "messages", "messages is missing");
    }
    reading->messages =
        sl_arena_alloc(reading->arena, (sl_json_len(messages) + 1) * sizeof(struct message));
    if (reading->messages == NULL) {
        return -SL_ENOMEM;
    }
    while (rv == 0 && sl_json_each(messages, &at, NULL, &value)) {
        rv = read_message(reading, index++, value);
    }
    asked = reading->count > 0 && !reading->messages[reading->question].assistant;
    return rv != 0 || asked
               ? rv
               : chat_refuse(reading->fault, "messages",
                             "messages has no message of the user: it is the question");
}

/* The newest messages before the question that fit, whole. */
static void cut_history(struct reading *reading, size_t max)
{
    size_t bytes = 0, turns = 0;
    reading->history = reading->question;
    while (reading->history > 0) {
        size_t len = reading->messages[reading->history - 1].content.len;
        turns += len > 0 ? 1 : 0;
        if (len > max - bytes || turns > SL_HISTORY_MAX) {
            break;
        }
        bytes += len;
        reading->history--;
    }
}

/* --- the query --- */

static void put_history(const struct reading *reading, struct sl_json_writer *w)
{
    sl_json_key(w, "history");
    sl_json_begin_array(w);
    for (size_t i = reading->history; i < reading->question; i++) {
        const struct message *message = &reading->messages[i];
        if (message->content.len == 0) {
            continue; /* A message of the model that only called a tool. */
        }
        sl_json_begin_object(w);
        sl_json_key(w, "role");
        sl_json_put_string(w, message->assistant ? SL_SPAN("assistant") : SL_SPAN("user"));
        sl_json_key(w, "content");
        sl_json_put_string(w, message->content);
        sl_json_end_object(w);
    }
    sl_json_end_array(w);
}

/* The members of `sluice`; what the question or OpenAI's own fields say has no place there. */
static int put_sluice(struct reading *reading, struct sl_json_writer *w)
{
    static const char *const allowed[] = {"collection",     "top_n",  "timeout_ms", "on_disconnect",
                                          "on_worker_lost", "filter", NULL};
    const struct sl_json *sluice = chat_member(reading->root, "sluice"), *value;
    struct sl_span name;
    size_t at = 0;
    while (sluice != NULL && sl_json_each(sluice, &at, &name, &value)) {
        char param[64];
        size_t i = 0;
        while (allowed[i] != NULL && !sl_span_is(name, allowed[i])) {
            i++;
        }
        if (allowed[i] == NULL) {
            snprintf(param, sizeof(param), "sluice.%.*s", name.len < 40 ? (int)name.len : 40,
                     name.data);
            return chat_refuse(reading->fault, param, "%s is not a known field", param);
        }
        if (sl_json_type(value) != SL_JSON_NULL) {
            chat_put_member(w, allowed[i], value);
        }
    }
    return 0;
}

/* A header speaks where the body is silent. */
static int put_headers(struct reading *reading, const struct chat_headers *headers,
                       struct sl_json_writer *w)
{
    const struct sl_json *sluice = chat_member(reading->root, "sluice");
    long long timeout_ms;
    if (headers->collection.data != NULL && chat_member(sluice, "collection") == NULL) {
        sl_json_key(w, "collection");
        sl_json_put_string(w, headers->collection);
    }
    if (headers->on_disconnect.data != NULL && chat_member(sluice, "on_disconnect") == NULL) {
        sl_json_key(w, "on_disconnect");
        sl_json_put_string(w, headers->on_disconnect);
    }
    if (headers->timeout_ms.data != NULL && chat_member(sluice, "timeout_ms") == NULL) {
        if (sl_span_to_int(headers->timeout_ms, 0, INT32_MAX, &timeout_ms) != 0) {
            return chat_refuse(reading->fault, "sluice-timeout-ms",
                               "header sluice-timeout-ms must be a whole number");
        }
        sl_json_key(w, "timeout_ms");
        sl_json_put_int(w, timeout_ms);
    }
    return 0;
}

static int write_query(struct reading *reading, const struct chat_headers *headers,
                       struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    const struct sl_json *limit = chat_member(reading->root, "max_completion_tokens");
    sl_json_begin_object(&w);
    sl_json_key(&w, "query");
    sl_json_put_string(&w, reading->messages[reading->question].content);
    put_history(reading, &w);
    chat_put_member(&w, "max_tokens",
                    limit != NULL ? limit : chat_member(reading->root, "max_tokens"));
    chat_put_member(&w, "temperature", chat_member(reading->root, "temperature"));
    chat_put_member(&w, "model", chat_member(reading->root, "model"));
    int rv = put_sluice(reading, &w);
    rv = rv != 0 ? rv : put_headers(reading, headers, &w);
    sl_json_end_object(&w);
    return rv != 0 ? rv : sl_buf_error(out);
}

/* The message begins with the name of its field. */
static void rename_fault(struct sl_fault *fault, const char *param, const char *shown)
{
    char message[sizeof(fault->message)];
    size_t len = strlen(fault->param);
    if (strncmp(fault->message, fault->param, len) == 0) {
        snprintf(message, sizeof(message), "%s%s", shown, fault->message + len);
        memcpy(fault->message, message, sizeof(message));
    }
    snprintf(fault->param, sizeof(fault->param), "%s", param);
}

/* The decoder speaks of a query's fields: say where the caller wrote them. */
static void translate_fault(const struct reading *reading, struct sl_fault *fault)
{
    static const char *const headers[][2] = {{"collection", "sluice-collection"},
                                             {"timeout_ms", "sluice-timeout-ms"},
                                             {"on_disconnect", "sluice-on-disconnect"}};
    const struct sl_json *sluice = chat_member(reading->root, "sluice");
    char name[sizeof(fault->param)], inside[sizeof(fault->param)];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(fault->param, ".["), fault->param);
    if (strcmp(name, "query") == 0) {
        rename_fault(fault, "messages", "the last message of the user");
    } else if (strcmp(name, "history") == 0) {
        rename_fault(fault, "messages", "a message before the last of the user");
    } else if (strcmp(name, "max_tokens") == 0 &&
               chat_member(reading->root, "max_completion_tokens") != NULL) {
        rename_fault(fault, "max_completion_tokens", "max_completion_tokens");
    } else if (chat_member(sluice, name) != NULL) {
        snprintf(inside, sizeof(inside), "sluice.%.*s", 56, name);
        rename_fault(fault, inside, inside);
    }
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        if (strcmp(fault->param, headers[i][0]) == 0) {
            rename_fault(fault, headers[i][1], headers[i][1]);
        }
    }
}

static int read_stream(struct reading *reading, struct chat_request *ret)
{
    const struct sl_json *stream = chat_member(reading->root, "stream");
    const struct sl_json *options = chat_member(reading->root, "stream_options");
    const struct sl_json *usage = chat_member(options, "include_usage");
    ret->stream = stream != NULL && sl_json_bool(stream);
    if (options != NULL && !ret->stream) {
        return chat_refuse(reading->fault, "stream_options",
                           "stream_options is for streams: set stream to true");
    }
    if (usage != NULL && !chat_is(usage, SL_JSON_BOOL)) {
        return chat_refuse(reading->fault, "stream_options.include_usage",
                           "stream_options.include_usage must be true or false");
    }
    ret->include_usage = usage != NULL && sl_json_bool(usage);
    return 0;
}

static int read_query(struct reading *reading, const struct chat_headers *headers,
                      struct chat_request *ret)
{
    struct sl_buf body;
    sl_buf_init(&body, BODY_MAX);
    int rv = write_query(reading, headers, &body);
    if (rv == 0) {
        rv = sl_query_decode(sl_buf_span(&body), true, reading->arena, &ret->query, reading->fault);
        if (rv == -SL_EINVAL || rv == -SL_EBADMSG) {
            translate_fault(reading, reading->fault);
        }
    }
    sl_buf_fini(&body);
    if (rv == 0 && ret->stream && ret->query.on_worker_lost == SL_WORKER_LOST_RESTART) {
        rv = chat_refuse(
            reading->fault, "sluice.on_worker_lost",
            "sluice.on_worker_lost must be \"error\" in a stream: OpenAI's chunks cannot "
            "take text back");
    }
    return rv;
}

static int check_model(struct reading *reading)
{
    return chat_member(reading->root, "model") != NULL
               ? 0
               : chat_refuse(reading->fault, "model", "model is missing");
}

int chat_request_read(struct sl_span body, const struct chat_headers *headers, size_t history_max,
                      struct sl_arena *arena, struct chat_request *ret, struct sl_fault *fault)
{
    struct reading reading = {.arena = arena, .fault = fault};
    struct sl_json_doc *doc;
    *ret = (struct chat_request){0};
    *fault = (struct sl_fault){{0}, {0}};
    char why[160] = "";
    int rv = sl_json_parse(body, &doc, why, sizeof(why));
    if (rv != 0) {
        snprintf(fault->message, sizeof(fault->message), "is not valid JSON: %s", why);
        return rv;
    }
    reading.root = sl_json_root(doc);
    if (!chat_is(reading.root, SL_JSON_OBJECT)) {
        snprintf(fault->message, sizeof(fault->message), "must be a JSON object");
        rv = -SL_EBADMSG;
    }
    rv = rv != 0 ? rv : chat_members_check(reading.root, fault);
    rv = rv != 0 ? rv : check_model(&reading);
    rv = rv != 0 ? rv : read_messages(&reading);
    rv = rv != 0 ? rv : read_stream(&reading, ret);
    if (rv == 0) {
        cut_history(&reading, history_max);
        rv = read_query(&reading, headers, ret);
    }
    rv = rv != 0 ? rv : chat_members_passed(reading.root, arena, &ret->query.extra, fault);
    ret->query.json = false;
    sl_json_free(doc);
    return rv;
}
