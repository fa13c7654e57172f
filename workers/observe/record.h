/* The analytics record of a query: one JSON object. docs/ANALYTICS.md says what its members mean.
 */
#ifndef SLUICE_WORKERS_OBSERVE_RECORD_H
#define SLUICE_WORKERS_OBSERVE_RECORD_H

#include "workers/observe/quality.h"

enum { RECORD_PREVIEW = 200 };

/* Which texts are left out: their members are "", as are the judge's reasons, which may quote them.
 * The words of SLUICE_ANALYTICS_REDACT, in this order. */
enum record_redact {
    RECORD_REDACT_NONE,
    RECORD_REDACT_QUERY,
    RECORD_REDACT_ANSWER,
    RECORD_REDACT_ALL
};

/* time_ms: when the result was appended, Unix ms. judge_model: "" where there is no judge. */
void record_write(const struct sl_ended *ended, int64_t time_ms, enum record_redact redact,
                  const struct quality *quality, const char *judge_model, struct sl_buf *out);

/* The first so many characters of text at most, never a part of one as readers see it: an accent, a
 * variation or a joined emoji stays with what it belongs to. Borrowed from text. */
struct sl_span record_preview(struct sl_span text, size_t characters);

#endif
