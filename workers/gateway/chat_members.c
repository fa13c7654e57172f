/*
 * The table of OpenAI's fields.
 *
 * There are fields that chat_request.c reads, fields that go to the model as they are, fields that
 * have no meaning for an answer from documents and are ignored, and fields whose meaning cannot be
 * kept, which are refused by name unless their value asks for nothing (tools: [], n: 1, logprobs:
 * false). What OpenAI does not know is refused too, since a misspelt option that is ignored is
 * worse than an error. null means absent. A new field of OpenAI's is one line here.
 */
#include "workers/gateway/chat_members.h"

#include <stdarg.h>
#include <stdio.h>

enum { PASSED_MAX = 65536, STOPS_MAX = 4 };

enum use {
    READ,   /* By chat_request.c. */
    PASS,   /* To the model. */
    IGNORE, /* Accepted, without effect. */
};

struct member {
    const char *name;
    enum use use;
    bool (*fits)(const struct sl_json *value); /* NULL: anything. */
    const char *must;                          /* "must be ..." where it does not fit. */
};

int chat_refuse(struct sl_fault *fault, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(fault->message, sizeof(fault->message), format, args);
    va_end(args);
    snprintf(fault->param, sizeof(fault->param), "%s", param);
    return -SL_EINVAL;
}

/* --- what values fit --- */

bool chat_is(const struct sl_json *value, enum sl_json_type type)
{
    return value != NULL && sl_json_type(value) == type;
}

static bool is_string(const struct sl_json *value)
{
    return chat_is(value, SL_JSON_STRING);
}

static bool is_bool(const struct sl_json *value)
{
    return chat_is(value, SL_JSON_BOOL);
}

static bool is_int(const struct sl_json *value)
{
    return chat_is(value, SL_JSON_INT);
}

static bool is_object(const struct sl_json *value)
{
    return chat_is(value, SL_JSON_OBJECT);
}

static bool is_array(const struct sl_json *value)
{
    return chat_is(value, SL_JSON_ARRAY);
}

static bool is_between(const struct sl_json *value, double min, double max)
{
    return (is_int(value) || chat_is(value, SL_JSON_NUMBER)) && sl_json_number(value) >= min &&
           sl_json_number(value) <= max;
}

static bool is_probability(const struct sl_json *value)
{
    return is_between(value, 0, 1);
}

static bool is_penalty(const struct sl_json *value)
{
    return is_between(value, -2, 2);
}

static bool is_one(const struct sl_json *value)
{
    return is_int(value) && sl_json_int(value) == 1;
}

static bool is_false(const struct sl_json *value)
{
    return is_bool(value) && !sl_json_bool(value);
}

static bool is_zero(const struct sl_json *value)
{
    return is_int(value) && sl_json_int(value) == 0;
}

static bool is_none(const struct sl_json *value)
{
    return is_string(value) && sl_span_is(sl_json_string(value), "none");
}

static bool is_empty_array(const struct sl_json *value)
{
    return is_array(value) && sl_json_len(value) == 0;
}

static bool is_text_only(const struct sl_json *value)
{
    const struct sl_json *element;
    size_t at = 0;
    if (!is_array(value)) {
        return false;
    }
    while (sl_json_each(value, &at, NULL, &element)) {
        if (!is_string(element) || !sl_span_is(sl_json_string(element), "text")) {
            return false;
        }
    }
    return true;
}

static bool is_stop(const struct sl_json *value)
{
    const struct sl_json *element;
    size_t at = 0;
    if (is_string(value)) {
        return true;
    }
    if (!is_array(value) || sl_json_len(value) > STOPS_MAX) {
        return false;
    }
    while (sl_json_each(value, &at, NULL, &element)) {
        if (!is_string(element)) {
            return false;
        }
    }
    return true;
}

static bool is_nothing(const struct sl_json *value)
{
    (void)value;
    return false;
}

#define NO_TOOLS "must be empty: tools are not supported"
static const struct member members[] = {
    {"messages", READ, is_array, "must be an array of messages"},
    {"model", READ, is_string, "must be a string"},
    {"stream", READ, is_bool, "must be true or false"},
    {"stream_options", READ, is_object, "must be an object"},
    {"max_tokens", READ, is_int, "must be a whole number"},
    {"max_completion_tokens", READ, is_int, "must be a whole number"},
    {"temperature", READ, NULL, NULL}, /* The query's decoder looks at it. */
    {"sluice", READ, is_object, "must be an object of a query's fields"},
    {"stop", PASS, is_stop, "must be a string or an array of at most 4 strings"},
    {"seed", PASS, is_int, "must be a whole number"},
    {"user", PASS, is_string, "must be a string"},
    {"top_p", PASS, is_probability, "must be a number from 0 to 1"},
    {"presence_penalty", PASS, is_penalty, "must be a number from -2 to 2"},
    {"frequency_penalty", PASS, is_penalty, "must be a number from -2 to 2"},
    {"logit_bias", PASS, is_object, "must be an object"},
    {"response_format", PASS, is_object, "must be an object"},
    {"reasoning_effort", PASS, is_string, "must be a string"},
    {"verbosity", PASS, is_string, "must be a string"},
    {"n", IGNORE, is_one, "must be 1: a query has one answer"},
    {"tools", IGNORE, is_empty_array, NO_TOOLS},
    {"functions", IGNORE, is_empty_array, NO_TOOLS},
    {"tool_choice", IGNORE, is_none, "must be \"none\": tools are not supported"},
    {"function_call", IGNORE, is_none, "must be \"none\": tools are not supported"},
    {"logprobs", IGNORE, is_false, "must be false: log probabilities are not supported"},
    {"top_logprobs", IGNORE, is_zero, "must be 0: log probabilities are not supported"},
    {"modalities", IGNORE, is_text_only, "must be [\"text\"]: other modalities are not supported"},
    {"audio", IGNORE, is_nothing, "is not supported"},
    {"web_search_options", IGNORE, is_nothing, "is not supported"},
    {"metadata", IGNORE, NULL, NULL},
    {"parallel_tool_calls", IGNORE, NULL, NULL},
    {"prediction", IGNORE, NULL, NULL},
    {"prompt_cache_key", IGNORE, NULL, NULL},
    {"prompt_cache_retention", IGNORE, NULL, NULL},
    {"safety_identifier", IGNORE, NULL, NULL},
    {"service_tier", IGNORE, NULL, NULL},
    {"store", IGNORE, NULL, NULL},
};

static const struct member *find_member(struct sl_span name)
{
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (sl_span_is(name, members[i].name)) {
            return &members[i];
        }
    }
    return NULL;
}

/* A member of an object; NULL when it is absent or null. */
const struct sl_json *chat_member(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    return value == NULL || sl_json_type(value) == SL_JSON_NULL ? NULL : value;
}

void chat_put_member(struct sl_json_writer *w, const char *key, const struct sl_json *value)
{
    if (value != NULL) {
        sl_json_key(w, key);
        sl_json_put_raw(w, SL_SPAN(""));
        sl_json_dump(value, w->out);
    }
}

int chat_members_check(const struct sl_json *root, struct sl_fault *fault)
{
    struct sl_span name;
    const struct sl_json *value;
    size_t at = 0;
    while (sl_json_each(root, &at, &name, &value)) {
        const struct member *member = find_member(name);
        char shown[48];
        snprintf(shown, sizeof(shown), SL_SPAN_FMT, SL_SPAN_ARG(name));
        if (member == NULL) {
            return chat_refuse(fault, shown, "%s is not a known field", shown);
        }
        if (sl_json_type(value) != SL_JSON_NULL && member->fits != NULL && !member->fits(value)) {
            return chat_refuse(fault, shown, "%s %s", shown, member->must);
        }
    }
    return 0;
}

/* What the model gets as it is, as one JSON object. */
int chat_members_passed(const struct sl_json *root, struct sl_arena *arena, struct sl_span *ret,
                        struct sl_fault *fault)
{
    struct sl_buf out;
    struct sl_json_writer w = {.out = &out};
    size_t count = 0;
    sl_buf_init(&out, PASSED_MAX);
    sl_json_begin_object(&w);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const struct sl_json *value =
            members[i].use == PASS ? chat_member(root, members[i].name) : NULL;
        chat_put_member(&w, members[i].name, value);
        count += value != NULL ? 1 : 0;
    }
    sl_json_end_object(&w);
    int rv = sl_buf_error(&out);
    if (rv == 0 && count > 0) {
        *ret = sl_arena_copy(arena, sl_buf_span(&out));
        rv = ret->data != NULL ? 0 : -SL_ENOMEM;
    } else if (rv == -SL_ETOOBIG) {
        snprintf(fault->message, sizeof(fault->message),
                 "the fields for the model are larger than %d bytes", PASSED_MAX);
    }
    sl_buf_fini(&out);
    return rv;
}
