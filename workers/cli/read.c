/*
 * Reading a text. What is not UTF-8 is never guessed at: it is refused, in words that say what it
 * seems to be, so that whoever has the file knows what to convert it from.
 *
 * What the name means may have changed since it was found. So it is looked at before it is opened
 * (opening a device may do something, and a pipe may block) and again afterwards.
 */
#include "workers/cli/read.h"

#include "common/chunk.h"
#include "workers/cli/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 65536 };

#define UTF8_MARK "\xef\xbb\xbf"

static bool refuse(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool refuse(char *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, CLI_WHY_MAX, format, args);
    va_end(args);
    return false;
}

/* --- bytes --- */

static bool refuse_size(char *why)
{
    return refuse(why, "larger than %d MiB", CLI_TEXT_MAX >> 20);
}

static bool refuse_errno(char *why)
{
    switch (errno) {
    case ENOENT:
        return refuse(why, "is gone");
    case EACCES:
        return refuse(why, "permission denied");
    default:
        return refuse(why, "cannot be read: %s", strerror(errno));
    }
}

static bool read_all(int fd, struct sl_buf *out, char *why)
{
    for (;;) {
        char *room = sl_buf_reserve(out, READ_BYTES);
        if (room == NULL) {
            return refuse(why, "%s", sl_error_text(-SL_ENOMEM));
        }
        ssize_t got = read(fd, room, READ_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0 || refuse_errno(why);
        }
        out->len += (size_t)got;
        if (out->len > CLI_TEXT_MAX) {
            return refuse_size(why);
        }
    }
}

/* --- text --- */

/* The encoding that a byte order mark names, but for UTF-8. */
static const char *marked_encoding(struct sl_span text)
{
    static const struct {
        const char mark[5];
        size_t len;
        const char *name;
    } marks[] = {
        {"\xff\xfe\0\0", 4, "UTF-32"},
        {"\0\0\xfe\xff", 4, "UTF-32"},
        {"\xff\xfe", 2, "UTF-16"},
        {"\xfe\xff", 2, "UTF-16"},
    };
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (text.len >= marks[i].len && memcmp(text.data, marks[i].mark, marks[i].len) == 0) {
            return marks[i].name;
        }
    }
    return NULL;
}

/* Texts in one byte a character are mostly ASCII and have no control characters. */
static bool looks_like_latin1(struct sl_span text)
{
    size_t high = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c < 0x20 && strchr("\t\n\r\f\v", c) == NULL) {
            return false;
        }
        high += c >= 0x80 ? 1 : 0;
    }
    return high <= text.len / 3;
}

static bool check_text(struct sl_span text, char *why)
{
    const char *encoding = marked_encoding(text);
    if (encoding != NULL) {
        return refuse(why, "not UTF-8: begins with the byte order mark of %s", encoding);
    }
    if (text.len > 0 && memchr(text.data, '\0', text.len) != NULL) {
        return refuse(why, "holds a zero byte: not a text");
    }
    size_t valid = sl_utf8_valid(text);
    if (valid < text.len) {
        return refuse(why, "not UTF-8%s: byte %zu is 0x%02x",
                      looks_like_latin1(text) ? ", perhaps Latin-1 or Windows-1252" : "", valid,
                      (unsigned)(unsigned char)text.data[valid]);
    }
    for (size_t i = 0; i < text.len; i++) {
        if (strchr(" \t\r\n\f\v", text.data[i]) == NULL) {
            return true;
        }
    }
    return refuse(why, text.len == 0 ? "empty" : "nothing but white space");
}

/* The byte order mark that some editors put at the start is no part of the text. */
static void drop_mark(struct sl_buf *text)
{
    if (sl_span_begins(sl_buf_span(text), UTF8_MARK)) {
        sl_buf_consume(text, sizeof(UTF8_MARK) - 1);
    }
}

bool cli_read_stream(int fd, struct sl_buf *out, char why[CLI_WHY_MAX])
{
    sl_buf_clear(out);
    if (!read_all(fd, out, why)) {
        return false;
    }
    drop_mark(out);
    return check_text(sl_buf_span(out), why);
}

bool cli_read_text(const char *root, const char *path, struct sl_buf *out, char why[CLI_WHY_MAX])
{
    char full[2 * PATH_MAX];
    struct stat st;
    sl_buf_clear(out);
    snprintf(full, sizeof(full), "%s/%s", root, path);
    if (stat(full, &st) != 0) {
        return refuse_errno(why);
    }
    int fd = S_ISREG(st.st_mode) ? open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (S_ISREG(st.st_mode) && (fd < 0 || fstat(fd, &st) != 0)) {
        refuse_errno(why);
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    const char *other = cli_not_a_file(st.st_mode);
    bool fine = other != NULL               ? refuse(why, "%s", other)
                : st.st_size > CLI_TEXT_MAX ? refuse_size(why)
                                            : cli_read_stream(fd, out, why);
    if (fd >= 0) {
        close(fd);
    }
    return fine;
}

void cli_put_name(struct sl_buf *out, const char *name)
{
    struct sl_span rest = sl_span_of(name);
    while (rest.len > 0) {
        size_t len = sl_utf8_sequence(rest);
        if (len == 0) {
            sl_buf_printf(out, "\\x%02x", (unsigned)(unsigned char)rest.data[0]);
            len = 1;
        } else {
            sl_buf_append(out, rest.data, len);
        }
        rest.data += len;
        rest.len -= len;
    }
}
