/* An answer as it comes: its events, and what is shown of them. */
#ifndef SLUICE_WORKERS_CLI_ANSWER_H
#define SLUICE_WORKERS_CLI_ANSWER_H

#include "common/json.h"
#include "workers/cli/terminal.h"

struct cli_answer {
    const char *command;
    struct cli_terminal out;
    FILE *err;
    struct sl_json_doc *sources, *end; /* The events that brought them; NULL before. */
    bool text_open;                    /* The cursor stands behind text of the answer. */
    bool failed;                       /* It ended in an error. */
};

/* command: "ask", for errors; static. err: where one line says what went wrong. Both files are
 * borrowed. */
void cli_answer_init(struct cli_answer *answer, const char *command, FILE *out, FILE *err);
void cli_answer_fini(struct cli_answer *answer);
/* One event of the stream (type and data as in SSE): text is written at once. 0, or -SL_EPROTO when
 * it is none that makes sense. */
int cli_answer_event(struct cli_answer *answer, struct sl_span type,
                     struct sl_span data) SL_CHECKED;
/* In place of events, a whole result: its text is written. 0, -SL_EBADMSG or -SL_ENOMEM. */
int cli_answer_result(struct cli_answer *answer, struct sl_span result) SL_CHECKED;
/* It has ended in `done` or `error`. */
bool cli_answer_ended(const struct cli_answer *answer);
/* After the end: the sources, the times of the stages and what was missing, or the error. */
void cli_answer_finish(struct cli_answer *answer);
/* Ends a line that is open, before something else is written. */
void cli_answer_close_text(struct cli_answer *answer);

/* "message (code, param)" of an error object in OpenAI's shape, or of any other text its first
 * line. */
void cli_describe_error(struct sl_span body, struct sl_buf *out);

#endif
