/* The screen: whether there is one, its width and colours, texts of others made safe for it, and a
 * line that shows progress. */
#ifndef SLUICE_WORKERS_CLI_TERMINAL_H
#define SLUICE_WORKERS_CLI_TERMINAL_H

#include "common/buf.h"

#include <stdint.h>
#include <stdio.h>

enum cli_style { CLI_PLAIN, CLI_BOLD, CLI_FAINT, CLI_RED, CLI_GREEN, CLI_YELLOW };

struct cli_terminal {
    FILE *out;
    bool tty;    /* Also: lines may be written over. */
    bool colour; /* Never without tty. */
    int width;   /* Columns; 100 when it is no terminal. */
};

/* Asks the system about out; cli_options (TERM, NO_COLOR) must have been loaded. */
void cli_terminal_init(struct cli_terminal *terminal, FILE *out);
/* The sequence that turns a style on, or that ends all (CLI_PLAIN); "" without colours. */
const char *cli_style(const struct cli_terminal *terminal, enum cli_style style);
/* Writes a text that came from elsewhere: on a terminal, control characters but newline and tab are
 * shown as '?', so that no document can move the cursor. */
void cli_put_text(const struct cli_terminal *terminal, struct sl_span text);
/* The first line of text, white space made single spaces, at most so many characters; a cut one
 * ends in an ellipsis. Appended to out. */
void cli_put_first_line(struct sl_buf *out, struct sl_span text, size_t max);
/* Characters of UTF-8 text, each taken as one column wide. */
size_t cli_text_width(struct sl_span text);

/* --- progress --- */

struct cli_progress {
    uint64_t done, failed, skipped, total; /* Documents. */
    uint64_t chunks;
    uint64_t elapsed_ms;
    /* What of it was lately, for the rate and the time left; 0: take all. */
    uint64_t recent_ms, recent_seen, recent_chunks;
};

/* One line without newline: `[####----] 18/37 documents  412 chunks  35.1/s  0:12 left`. bar: as
 * wide as the rest leaves free; without it (a log) only the words. */
void cli_progress_format(const struct cli_progress *progress, int width, bool bar,
                         struct sl_buf *out);

/* Draws it over the last one; without a terminal a plain line, at most one in 5 s. */
struct cli_progress_line {
    struct cli_terminal terminal;
    uint64_t last_ms;
    bool shown;
};
void cli_progress_init(struct cli_progress_line *line, FILE *out, uint64_t now_ms);
void cli_progress_draw(struct cli_progress_line *line, const struct cli_progress *progress,
                       uint64_t now_ms);
/* Ends the line that stands on the terminal, before something else is written. */
void cli_progress_end(struct cli_progress_line *line);

#endif
