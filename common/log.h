/*
 * Structured log lines to standard error, as key=value or JSON. A line is formatted on the calling
 * thread into a bounded ring and written by a thread of its own, so that a slow disk or terminal
 * never holds up the loop; lines that find the ring full are dropped and counted. Safe from any
 * thread.
 *
 *     sl_log(SL_LOG_WARN, "upstream slow", SL_STR("upstream", "CHAT"), SL_INT("ms", elapsed));
 */
#ifndef SLUICE_COMMON_LOG_H
#define SLUICE_COMMON_LOG_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum sl_log_level { SL_LOG_DEBUG, SL_LOG_INFO, SL_LOG_WARN, SL_LOG_ERROR };
enum sl_log_format { SL_LOG_TEXT, SL_LOG_JSON };

struct sl_field {
    const char *key; /* NULL ends the fields. */
    enum { SL_FIELD_SPAN, SL_FIELD_INT, SL_FIELD_NUMBER } type;
    struct sl_span span;
    long long integer;
    double number;
};

#define SL_STR(k, text)                                                                            \
    ((struct sl_field){.key = (k), .type = SL_FIELD_SPAN, .span = sl_span_of(text)})
#define SL_SPANF(k, s) ((struct sl_field){.key = (k), .type = SL_FIELD_SPAN, .span = (s)})
#define SL_INT(k, n)                                                                               \
    ((struct sl_field){.key = (k), .type = SL_FIELD_INT, .integer = (long long)(n)})
#define SL_NUM(k, n) ((struct sl_field){.key = (k), .type = SL_FIELD_NUMBER, .number = (n)})
#define SL_ERR(err) SL_STR("error", sl_error_text(err))

/* message is static text; then fields. Values are copied and escaped; over-long ones are cut. */
#define sl_log(level, ...) sl_log_write(level, __VA_ARGS__, (struct sl_field){.key = NULL})
void sl_log_write(enum sl_log_level level, const char *message, ...);
bool sl_log_wants(enum sl_log_level level); /* Lines of this level are written. */

/* Before the first line; program is on each line. Without it, lines go to stderr synchronously. */
int sl_log_start(const char *program, enum sl_log_level level, enum sl_log_format format,
                 int fd) SL_CHECKED;
void sl_log_stop(void); /* Writes what is in the ring (for at most 2 s) and ends the thread. */
uint64_t sl_log_dropped(void);

#endif
