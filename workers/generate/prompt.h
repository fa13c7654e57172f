/* The request to the chat model: numbered context, the rule to answer from it alone, and the
 * question. */
#ifndef SLUICE_WORKERS_GENERATE_PROMPT_H
#define SLUICE_WORKERS_GENERATE_PROMPT_H

#include "common/message.h"

/* Appends the JSON body of a streamed /chat/completions call. Errors are in out. */
void prompt_write(const struct sl_query *query, struct sl_span model, struct sl_buf *out);

#endif
