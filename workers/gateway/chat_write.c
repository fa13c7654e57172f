/*
 * OpenAI's objects, member by member as its API reference has them, and `citations` besides. The
 * order of members is OpenAI's too. Members that have no meaning here but that clients may read
 * (refusal, logprobs) are null.
 */
#include "workers/gateway/chat_write.h"

#include "common/json.h"

static void put_text(struct sl_json_writer *w, const char *key, struct sl_span value)
{
    sl_json_key(w, key);
    sl_json_put_string(w, value);
}

static void put_int(struct sl_json_writer *w, const char *key, int64_t value)
{
    sl_json_key(w, key);
    sl_json_put_int(w, value);
}

static void put_null(struct sl_json_writer *w, const char *key)
{
    sl_json_key(w, key);
    sl_json_put_null(w);
}

static void begin(struct sl_json_writer *w, const struct chat_head *head, const char *object)
{
    sl_json_begin_object(w);
    sl_json_key(w, "id");
    sl_json_put_raw(w, SL_SPAN("\"chatcmpl-")); /* An id has nothing to escape. */
    sl_buf_append_span(w->out, head->id);
    sl_buf_append_text(w->out, "\"");
    put_text(w, "object", sl_span_of(object));
    put_int(w, "created", head->created_s);
    put_text(w, "model", head->model);
}

static void put_usage(struct sl_json_writer *w, const struct sl_usage *usage)
{
    sl_json_key(w, "usage");
    sl_json_begin_object(w);
    put_int(w, "prompt_tokens", usage->prompt_tokens);
    put_int(w, "completion_tokens", usage->completion_tokens);
    put_int(w, "total_tokens", (int64_t)usage->prompt_tokens + usage->completion_tokens);
    sl_json_end_object(w);
}

static void put_reason(struct sl_json_writer *w, struct sl_span reason)
{
    sl_json_key(w, "finish_reason");
    if (reason.len > 0) {
        sl_json_put_string(w, reason);
    } else {
        sl_json_put_null(w);
    }
}

/* --- chunks --- */

/* Up to the inside of the delta. */
static void begin_chunk(struct sl_json_writer *w, const struct chat_head *head)
{
    begin(w, head, "chat.completion.chunk");
    sl_json_key(w, "choices");
    sl_json_begin_array(w);
    sl_json_begin_object(w);
    put_int(w, "index", 0);
    sl_json_key(w, "delta");
    sl_json_begin_object(w);
}

static void end_delta(struct sl_json_writer *w, const struct chat_head *head, struct sl_span reason)
{
    sl_json_end_object(w);
    put_null(w, "logprobs");
    put_reason(w, reason);
    sl_json_end_object(w);
    sl_json_end_array(w);
    if (head->include_usage) {
        put_null(w, "usage");
    }
}

void chat_write_first(struct sl_buf *out, const struct chat_head *head, struct sl_span citations)
{
    struct sl_json_writer w = {.out = out};
    begin_chunk(&w, head);
    put_text(&w, "role", SL_SPAN("assistant"));
    put_text(&w, "content", SL_SPAN(""));
    end_delta(&w, head, SL_SPAN(""));
    sl_json_key(&w, "citations");
    sl_json_put_raw(&w, citations);
    sl_json_end_object(&w);
}

void chat_write_delta(struct sl_buf *out, const struct chat_head *head, struct sl_span text)
{
    struct sl_json_writer w = {.out = out};
    begin_chunk(&w, head);
    put_text(&w, "content", text);
    end_delta(&w, head, SL_SPAN(""));
    sl_json_end_object(&w);
}

void chat_write_finish(struct sl_buf *out, const struct chat_head *head, struct sl_span reason)
{
    struct sl_json_writer w = {.out = out};
    begin_chunk(&w, head);
    end_delta(&w, head, reason.len > 0 ? reason : SL_SPAN("stop"));
    sl_json_end_object(&w);
}

void chat_write_usage(struct sl_buf *out, const struct chat_head *head,
                      const struct sl_usage *usage)
{
    struct sl_json_writer w = {.out = out};
    begin(&w, head, "chat.completion.chunk");
    sl_json_key(&w, "choices");
    sl_json_begin_array(&w);
    sl_json_end_array(&w);
    put_usage(&w, usage);
    sl_json_end_object(&w);
}

/* --- the whole answer --- */

void chat_write_answer(struct sl_buf *out, const struct chat_head *head,
                       const struct sl_result *result, struct sl_span citations)
{
    struct sl_json_writer w = {.out = out};
    begin(&w, head, "chat.completion");
    sl_json_key(&w, "choices");
    sl_json_begin_array(&w);
    sl_json_begin_object(&w);
    put_int(&w, "index", 0);
    sl_json_key(&w, "message");
    sl_json_begin_object(&w);
    put_text(&w, "role", SL_SPAN("assistant"));
    put_text(&w, "content", result->answer);
    put_null(&w, "refusal");
    sl_json_end_object(&w);
    put_null(&w, "logprobs");
    put_reason(&w, result->finish_reason.len > 0 ? result->finish_reason : SL_SPAN("stop"));
    sl_json_end_object(&w);
    sl_json_end_array(&w);
    put_usage(&w, &result->usage);
    sl_json_key(&w, "citations");
    sl_json_put_raw(&w, citations);
    sl_json_end_object(&w);
}

/* --- models --- */

bool chat_next_model(const char **list, struct sl_span *ret)
{
    const char *at = *list + strspn(*list, ", ");
    *ret = (struct sl_span){at, strcspn(at, ", ")};
    *list = at + ret->len;
    return ret->len > 0;
}

static void put_model(struct sl_json_writer *w, struct sl_span name, int64_t created_s)
{
    sl_json_begin_object(w);
    put_text(w, "id", name);
    put_text(w, "object", SL_SPAN("model"));
    put_int(w, "created", created_s);
    put_text(w, "owned_by", SL_SPAN("sluice"));
    sl_json_end_object(w);
}

void chat_write_model(struct sl_buf *out, struct sl_span name, int64_t created_s)
{
    struct sl_json_writer w = {.out = out};
    put_model(&w, name, created_s);
}

void chat_write_models(struct sl_buf *out, const char *models, int64_t created_s)
{
    struct sl_json_writer w = {.out = out};
    struct sl_span name;
    sl_json_begin_object(&w);
    put_text(&w, "object", SL_SPAN("list"));
    sl_json_key(&w, "data");
    sl_json_begin_array(&w);
    put_model(&w, SL_SPAN("sluice"), created_s);
    while (chat_next_model(&models, &name)) {
        put_model(&w, name, created_s);
    }
    sl_json_end_array(&w);
    sl_json_end_object(&w);
}
