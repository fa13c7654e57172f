/*
 * The values of options: how each type is read from text and described to people. Used by options.c
 * alone; see options.h for the types.
 */
#ifndef SLUICE_COMMON_OPTION_VALUE_H
#define SLUICE_COMMON_OPTION_VALUE_H

#include "common/options.h"

/* Reads text as the option's type, checks the limits and stores it in the values struct; strings
 * are borrowed. An empty text is a value only for strings, URLs and addresses. 0 or -SL_EINVAL. */
int sl_option_store(const struct sl_option *option, const char *text, void *values) SL_CHECKED;

/* "whole number", "duration" */
const char *sl_option_type_name(enum sl_option_type type);
/* Appends what is allowed, such as "1s to 10m" or "text, json"; nothing when all is. */
void sl_option_put_range(const struct sl_option *option, struct sl_buf *out);
/* Appends what the value must be, such as "a duration like 1500ms, 15s, 5m or 24h, 1s to 10m". */
void sl_option_put_wanted(const struct sl_option *option, struct sl_buf *out);
/* Appends text as it may be shown: secrets as "(hidden)", URLs without user and password, control
 * characters as ?. */
void sl_option_put_shown(const struct sl_option *option, const char *text, struct sl_buf *out);

#endif
