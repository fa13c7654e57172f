/*
 * The screen. Colours and lines that are written over only where a terminal is: in a file or a pipe
 * the same words stand plain, one line after another. NO_COLOR and TERM=dumb are kept.
 *
 * What comes from models and documents is not ours: on a terminal its control characters are taken
 * out, since an escape sequence in a document could rewrite what stands on the screen.
 */
#include "workers/cli/terminal.h"

#include "workers/cli/cli.h"

#include <inttypes.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PLAIN_WIDTH = 100, LINE_MAX_BYTES = 1024, BAR_MAX = 30, PLAIN_EVERY_MS = 5000 };

/* A terminal may be made wider or narrower at any time. */
static void measure(struct cli_terminal *terminal)
{
    struct winsize size = {0};
    if (terminal->tty && ioctl(fileno(terminal->out), TIOCGWINSZ, &size) == 0 &&
        size.ws_col >= 20) {
        terminal->width = size.ws_col;
    }
}

void cli_terminal_init(struct cli_terminal *terminal, FILE *out)
{
    *terminal = (struct cli_terminal){.out = out, .width = PLAIN_WIDTH};
    terminal->tty = isatty(fileno(out)) == 1 && strcmp(cli_options.term, "dumb") != 0;
    terminal->colour = terminal->tty && cli_options.no_color[0] == '\0';
    measure(terminal);
}

const char *cli_style(const struct cli_terminal *terminal, enum cli_style style)
{
    static const char *const sequences[] = {"\x1b[0m",  "\x1b[1m",  "\x1b[2m",
                                            "\x1b[31m", "\x1b[32m", "\x1b[33m"};
    return terminal->colour ? sequences[style] : "";
}

/* Length of a control character at text[at] (C0, DEL or C1), 0 when it is none. */
static size_t control_length(struct sl_span text, size_t at)
{
    unsigned char c = (unsigned char)text.data[at];
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
        return 1;
    }
    bool is_c1 = c == 0xc2 && at + 1 < text.len && (unsigned char)text.data[at + 1] < 0xa0;
    return is_c1 ? 2 : 0;
}

void cli_put_text(const struct cli_terminal *terminal, struct sl_span text)
{
    size_t from = 0;
    for (size_t at = 0; at < text.len && terminal->tty;) {
        size_t len = control_length(text, at);
        if (len > 0) {
            fwrite(text.data + from, 1, at - from, terminal->out);
            fputc('?', terminal->out);
            from = at + len;
        }
        at += len > 0 ? len : 1;
    }
    if (from < text.len) {
        fwrite(text.data + from, 1, text.len - from, terminal->out);
    }
}

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

size_t cli_text_width(struct sl_span text)
{
    size_t width = 0;
    for (size_t i = 0; i < text.len; i++) {
        width += begins_character(text.data[i]) ? 1 : 0;
    }
    return width;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

/* A line that is written up to a number of characters. */
struct cut_line {
    struct sl_buf *out;
    size_t width, max;
    size_t cut; /* Where the text would be cut, to end in an ellipsis. */
};

/* One more character begins; false when there is no room, and the line has its ellipsis. */
static bool begin_character(struct cut_line *line)
{
    if (line->width + 1 == line->max) {
        line->cut = line->out->len;
    }
    if (line->width == line->max) {
        line->out->len = line->cut;
        sl_buf_append_text(line->out, "…");
        return false;
    }
    line->width++;
    return true;
}

void cli_put_first_line(struct sl_buf *out, struct sl_span text, size_t max)
{
    struct cut_line line = {.out = out, .max = max, .cut = out->len};
    size_t at = 0;
    bool space = false;
    while (at < text.len && (is_space(text.data[at]) || text.data[at] == '\n')) {
        at++;
    }
    for (; at < text.len && text.data[at] != '\n'; at++) {
        char c = text.data[at];
        if (is_space(c)) {
            space = true;
            continue;
        }
        if (space) {
            if (!begin_character(&line)) {
                return;
            }
            sl_buf_append(out, " ", 1);
            space = false;
        }
        if (begins_character(c) && !begin_character(&line)) {
            return;
        }
        sl_buf_append(out, &c, 1);
    }
}

/* --- progress --- */

static uint64_t seen_of(const struct cli_progress *progress)
{
    return progress->done + progress->failed + progress->skipped;
}

static void put_time_left(const struct cli_progress *progress, struct sl_buf *out)
{
    uint64_t seen = seen_of(progress), recent = seen, ms = progress->elapsed_ms;
    if (progress->recent_ms > 0) {
        recent = progress->recent_seen;
        ms = progress->recent_ms;
    }
    if (recent == 0 || ms < 1000 || seen >= progress->total) {
        return;
    }
    uint64_t seconds = ms * (progress->total - seen) / recent / 1000;
    if (seconds >= 3600) {
        sl_buf_printf(out, "  %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 " left", seconds / 3600,
                      seconds / 60 % 60, seconds % 60);
    } else {
        sl_buf_printf(out, "  %" PRIu64 ":%02" PRIu64 " left", seconds / 60, seconds % 60);
    }
}

static void put_words(const struct cli_progress *progress, struct sl_buf *out)
{
    bool recent = progress->recent_ms > 0;
    uint64_t ms = recent ? progress->recent_ms : progress->elapsed_ms;
    uint64_t chunks = recent ? progress->recent_chunks : progress->chunks;
    sl_buf_printf(out, "%" PRIu64 "/%" PRIu64 " documents", seen_of(progress), progress->total);
    if (progress->failed > 0) {
        sl_buf_printf(out, " (%" PRIu64 " failed)", progress->failed);
    }
    if (progress->skipped > 0) {
        sl_buf_printf(out, " (%" PRIu64 " unchanged)", progress->skipped);
    }
    sl_buf_printf(out, "  %" PRIu64 " chunks", progress->chunks);
    if (ms >= 1000) {
        sl_buf_printf(out, "  %.1f/s", (double)chunks * 1000 / (double)ms);
    }
    put_time_left(progress, out);
}

void cli_progress_format(const struct cli_progress *progress, int width, bool bar,
                         struct sl_buf *out)
{
    struct sl_buf words;
    sl_buf_init(&words, LINE_MAX_BYTES);
    put_words(progress, &words);
    int room = width - 1 - (int)words.len - 3; /* Brackets and a space; the last column is free. */
    room = room > BAR_MAX ? BAR_MAX : room;
    if (bar && room >= 5) {
        uint64_t seen = seen_of(progress);
        uint64_t full = progress->total > 0 ? seen * (uint64_t)room / progress->total : 0;
        sl_buf_append_text(out, "[");
        for (int i = 0; i < room; i++) {
            sl_buf_append_text(out, (uint64_t)i < full ? "#" : "-");
        }
        sl_buf_append_text(out, "] ");
    }
    size_t fits = bar && words.len > (size_t)width - 1 ? (size_t)width - 1 : words.len;
    sl_buf_append(out, words.data, fits);
    sl_buf_fini(&words);
}

void cli_progress_init(struct cli_progress_line *line, FILE *out, uint64_t now_ms)
{
    *line = (struct cli_progress_line){.last_ms = now_ms};
    cli_terminal_init(&line->terminal, out);
}

void cli_progress_draw(struct cli_progress_line *line, const struct cli_progress *progress,
                       uint64_t now_ms)
{
    struct cli_terminal *terminal = &line->terminal;
    struct sl_buf text;
    measure(terminal);
    if (!terminal->tty && now_ms - line->last_ms < PLAIN_EVERY_MS) {
        return;
    }
    line->last_ms = now_ms;
    sl_buf_init(&text, LINE_MAX_BYTES);
    cli_progress_format(progress, terminal->width, terminal->tty, &text);
    fprintf(terminal->out, terminal->tty ? "\r" SL_SPAN_FMT "\x1b[K" : SL_SPAN_FMT "\n",
            SL_SPAN_ARG(sl_buf_span(&text)));
    fflush(terminal->out);
    sl_buf_fini(&text);
    line->shown = terminal->tty;
}

void cli_progress_end(struct cli_progress_line *line)
{
    if (line->shown) {
        fputc('\n', line->terminal.out);
        fflush(line->terminal.out);
        line->shown = false;
    }
}
