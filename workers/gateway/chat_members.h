/* OpenAI's fields of a chat request: which there are, what fits them, and what the model gets. */
#ifndef SLUICE_GATEWAY_CHAT_MEMBERS_H
#define SLUICE_GATEWAY_CHAT_MEMBERS_H

#include "common/codec.h"
#include "common/json.h"

/* A member of an object; NULL when it is absent or null, or object is NULL. */
const struct sl_json *chat_member(const struct sl_json *object, const char *key);
/* False for NULL. */
bool chat_is(const struct sl_json *value, enum sl_json_type type);
/* Writes key and value; nothing when value is NULL. */
void chat_put_member(struct sl_json_writer *w, const char *key, const struct sl_json *value);

/* Fills fault; returns -SL_EINVAL. */
int chat_refuse(struct sl_fault *fault, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Each member is known and fits: 0, else -SL_EINVAL. */
int chat_members_check(const struct sl_json *root, struct sl_fault *fault) SL_CHECKED;
/* The members that go to the model as they are: the text of a JSON object in the arena, empty when
 * there are none. -SL_ETOOBIG, -SL_ENOMEM. */
int chat_members_passed(const struct sl_json *root, struct sl_arena *arena, struct sl_span *ret,
                        struct sl_fault *fault) SL_CHECKED;

#endif
