/* OpenAI's chat objects as JSON text: the chunks of a stream and the whole answer. Pure. */
#ifndef SLUICE_GATEWAY_CHAT_WRITE_H
#define SLUICE_GATEWAY_CHAT_WRITE_H

#include "common/message.h"

/* What all objects of one answer share. */
struct chat_head {
    struct sl_span id;    /* The query's; the object's is chatcmpl-<it>. */
    int64_t created_s;    /* Unix seconds. */
    struct sl_span model; /* As the caller named it. */
    bool include_usage;   /* Chunks say "usage": null, and one at the end has it. */
};

/* Each appends one JSON object. citations: a JSON array. */
void chat_write_first(struct sl_buf *out, const struct chat_head *head, struct sl_span citations);
void chat_write_delta(struct sl_buf *out, const struct chat_head *head, struct sl_span text);
void chat_write_finish(struct sl_buf *out, const struct chat_head *head, struct sl_span reason);
void chat_write_usage(struct sl_buf *out, const struct chat_head *head,
                      const struct sl_usage *usage);
/* The answer that is not streamed; its text, reason, and usage are the result's. */
void chat_write_answer(struct sl_buf *out, const struct chat_head *head,
                       const struct sl_result *result, struct sl_span citations);

/* {"object": "list", "data": [...]}: sluice, and each of models, comma separated. */
void chat_write_models(struct sl_buf *out, const char *models, int64_t created_s);
void chat_write_model(struct sl_buf *out, struct sl_span name, int64_t created_s); /* One. */
/* The next of a comma separated list; false at the end. */
bool chat_next_model(const char **list, struct sl_span *ret);

#endif
