/*
 * Headings and fenced code in Markdown, by CommonMark's rules for blocks, line by line.
 *
 * For each line: which of the open lists and quotations go on; whether it belongs to the open code
 * or HTML; which lists and quotations it opens; and what then stands on it: a heading (#), a fence,
 * the underline that makes the paragraph above a heading, a thematic break, or text. What lies in a
 * list or a quotation must be known so that its lines are not taken for something else ("- a" over
 * "---" is no heading), but headings there are not sections of the document and are left out.
 *
 * Why no library: Debian has cmark, the reference. It builds a tree of several times the text, all
 * inlines too, which a document of 16 MiB of "#" can make gigabytes, and ends the process when
 * memory runs out. What is needed of it are the 200 lines below, which keep 12 bytes a heading. In
 * these they differ: HTML blocks of a kind of their own (types 4, 5 and 7) end at a blank line,
 * a paragraph of link definitions counts as text, and lists nest up to DEPTH_MAX deep.
 */
#include "common/chunk_internal.h"

#include <stdlib.h>

enum { DEPTH_MAX = 32, BLOCKS_MAX = 1000000, TAB = 4, CODE_INDENT = 4 };

struct container {
    bool quote;
    bool empty;   /* A list item: nothing stands in it yet. */
    size_t width; /* Columns that its lines are indented by. */
};

enum html { HTML_NONE, HTML_TAG, HTML_COMMENT, HTML_RAW };

struct scan {
    struct sl_span text;
    struct chunk_blocks *blocks;
    struct container containers[DEPTH_MAX];
    size_t depth;
    size_t line, next; /* The current line, and the one after it. */
    size_t at, column; /* In the line; a tab may be half used. */
    size_t end;        /* Of the line, without what ends it. */
    bool paragraph;    /* Text is open, from paragraph_at on, and may be underlined. */
    size_t paragraph_at;
    char fence; /* '`', '~', or 0: no code is open. */
    size_t fence_len, fence_at, fence_depth;
    enum html html;
    size_t html_depth;
};

/* --- a line --- */

static char peek(const struct scan *scan, size_t at)
{
    return at < scan->end ? scan->text.data[at] : '\0';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static size_t skip_blanks(const struct scan *scan, size_t at)
{
    while (at < scan->end && is_blank(scan->text.data[at])) {
        at++;
    }
    return at;
}

/* Columns of white space from here on. */
static size_t indent(const struct scan *scan)
{
    size_t column = scan->column;
    for (size_t at = scan->at; at < scan->end && is_blank(scan->text.data[at]); at++) {
        column += scan->text.data[at] == '\t' ? TAB - column % TAB : 1;
    }
    return column - scan->column;
}

static void advance(struct scan *scan, size_t columns)
{
    while (columns > 0 && scan->at < scan->end) {
        size_t width = scan->text.data[scan->at] == '\t' ? TAB - scan->column % TAB : 1;
        size_t step = width < columns ? width : columns;
        scan->column += step;
        columns -= step;
        scan->at += step == width ? 1 : 0;
    }
}

static size_t count_of(const struct scan *scan, size_t at, char c)
{
    size_t len = 0;
    while (peek(scan, at + len) == c && at + len < scan->end) {
        len++;
    }
    return len;
}

static void open_line(struct scan *scan, size_t at)
{
    const char *data = scan->text.data;
    scan->line = scan->at = at;
    scan->column = 0;
    while (at < scan->text.len && data[at] != '\n' && data[at] != '\r') {
        at++;
    }
    scan->end = at;
    if (at < scan->text.len) {
        at += data[at] == '\r' && at + 1 < scan->text.len && data[at + 1] == '\n' ? 2 : 1;
    }
    scan->next = at;
}

static int add_block(struct scan *scan, size_t from, size_t to, uint32_t level, bool underlined)
{
    struct chunk_blocks *blocks = scan->blocks;
    if (blocks->len == BLOCKS_MAX) {
        return -SL_ETOOBIG;
    }
    if (blocks->len == blocks->cap) {
        size_t cap = blocks->cap > 0 ? blocks->cap * 2 : 64;
        struct chunk_block *list = realloc(blocks->list, cap * sizeof(*list));
        if (list == NULL) {
            return -SL_ENOMEM;
        }
        blocks->list = list;
        blocks->cap = cap;
    }
    blocks->list[blocks->len++] =
        (struct chunk_block){(uint32_t)from, (uint32_t)to, (uint8_t)level, underlined};
    return 0;
}

/* --- lists and quotations --- */

/* How many of the open ones this line goes on with. */
static size_t match_containers(struct scan *scan)
{
    size_t matched = 0;
    for (; matched < scan->depth; matched++) {
        struct container *container = &scan->containers[matched];
        size_t columns = indent(scan);
        size_t first = skip_blanks(scan, scan->at);
        if (container->quote) {
            if (columns >= CODE_INDENT || peek(scan, first) != '>') {
                break;
            }
            advance(scan, columns + 1);
            advance(scan, is_blank(peek(scan, scan->at)) ? 1 : 0);
        } else if (columns >= container->width && !(container->empty && first >= scan->end)) {
            advance(scan, container->width);
        } else if (first < scan->end || container->empty) {
            break;
        }
        container->empty = container->empty && first >= scan->end;
    }
    return matched;
}

static bool is_thematic_break(const struct scan *scan, size_t at)
{
    char c = peek(scan, at);
    size_t count = 0;
    if (c != '*' && c != '-' && c != '_') {
        return false;
    }
    for (; at < scan->end; at++) {
        if (scan->text.data[at] == c) {
            count++;
        } else if (!is_blank(scan->text.data[at])) {
            return false;
        }
    }
    return count >= 3;
}

/* The length of the list marker at `at`; 0: there is none, or none that may end a paragraph. */
static size_t list_marker(const struct scan *scan, size_t at, bool interrupts)
{
    char c = peek(scan, at);
    size_t len = 0;
    bool one = true;
    if (c == '-' || c == '+' || c == '*') {
        len = 1;
    } else {
        while (len < 10 && peek(scan, at + len) >= '0' && peek(scan, at + len) <= '9') {
            len++;
        }
        one = len == 1 && c == '1';
        c = peek(scan, at + len);
        len = len > 0 && len < 10 && (c == '.' || c == ')') ? len + 1 : 0;
    }
    bool empty = skip_blanks(scan, at + len) >= scan->end;
    if (len == 0 || (!empty && !is_blank(peek(scan, at + len))) ||
        (interrupts && (empty || !one))) {
        return 0;
    }
    return len;
}

static bool push_container(struct scan *scan, bool interrupts)
{
    size_t columns = indent(scan), first = skip_blanks(scan, scan->at), len;
    if (columns >= CODE_INDENT || scan->depth == DEPTH_MAX) {
        return false;
    }
    if (peek(scan, first) == '>') {
        advance(scan, columns + 1);
        advance(scan, is_blank(peek(scan, scan->at)) ? 1 : 0);
        scan->containers[scan->depth++] = (struct container){.quote = true};
        return true;
    }
    if (is_thematic_break(scan, first) || (len = list_marker(scan, first, interrupts)) == 0) {
        return false;
    }
    advance(scan, columns + len);
    size_t gap = indent(scan);
    bool empty = skip_blanks(scan, scan->at) >= scan->end;
    gap = gap > CODE_INDENT || empty ? 1 : gap;
    advance(scan, gap);
    scan->containers[scan->depth++] =
        (struct container){.width = columns + len + gap, .empty = empty};
    return true;
}

/* --- what stands on a line --- */

/* 1 to 6, or 0. */
static uint32_t atx_level(const struct scan *scan, size_t at)
{
    size_t len = count_of(scan, at, '#');
    bool ends = at + len >= scan->end || is_blank(peek(scan, at + len));
    return len >= 1 && len <= 6 && ends ? (uint32_t)len : 0;
}

static size_t fence_length(const struct scan *scan, size_t at)
{
    char c = peek(scan, at);
    size_t len = c == '`' || c == '~' ? count_of(scan, at, c) : 0;
    if (len < 3 || (c == '`' && memchr(scan->text.data + at + len, '`', scan->end - at - len))) {
        return 0;
    }
    return len;
}

static uint32_t setext_level(const struct scan *scan, size_t at)
{
    char c = peek(scan, at);
    size_t len = c == '=' || c == '-' ? count_of(scan, at, c) : 0;
    return len > 0 && skip_blanks(scan, at + len) >= scan->end ? (c == '=' ? 1 : 2) : 0;
}

static bool begins_tag(const struct scan *scan, size_t at, const char *name)
{
    struct sl_span word = {scan->text.data + at, strlen(name)};
    char after = peek(scan, at + word.len);
    return scan->end - at >= word.len && sl_span_equal_nocase(word, sl_span_of(name)) &&
           (after == '\0' || is_blank(after) || after == '>' || after == '/');
}

static enum html html_kind(const struct scan *scan, size_t at, bool interrupts)
{
    static const char *const raw[] = {"pre", "script", "style", "textarea"};
    static const char *const blocks[] = {
        "address", "article", "aside",   "blockquote", "body",     "br",     "center", "dd",
        "details", "div",     "dl",      "dt",         "fieldset", "figure", "footer", "form",
        "h1",      "h2",      "h3",      "h4",         "h5",       "h6",     "header", "hr",
        "html",    "iframe",  "li",      "link",       "main",     "menu",   "nav",    "ol",
        "p",       "section", "summary", "table",      "tbody",    "td",     "tfoot",  "th",
        "thead",   "title",   "tr",      "ul"};
    if (peek(scan, at) != '<') {
        return HTML_NONE;
    }
    if (scan->end - at >= 4 && memcmp(scan->text.data + at, "<!--", 4) == 0) {
        return HTML_COMMENT;
    }
    for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++) {
        if (begins_tag(scan, at + 1, raw[i])) {
            return HTML_RAW;
        }
    }
    size_t name = at + (peek(scan, at + 1) == '/' ? 2 : 1);
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        if (begins_tag(scan, name, blocks[i])) {
            return HTML_TAG;
        }
    }
    /* A tag alone on its line. */
    size_t len = 0;
    for (char c = peek(scan, name); (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');) {
        c = peek(scan, name + ++len);
    }
    const char *close = memchr(scan->text.data + name, '>', scan->end - name);
    return !interrupts && len > 0 && peek(scan, name + len) != ':' && close != NULL &&
                   skip_blanks(scan, (size_t)(close + 1 - scan->text.data)) >= scan->end
               ? HTML_TAG
               : HTML_NONE;
}

static bool holds(const struct scan *scan, size_t at, const char *word)
{
    return memmem(scan->text.data + at, scan->end - at, word, strlen(word)) != NULL;
}

static bool ends_html(const struct scan *scan, size_t at)
{
    switch (scan->html) {
    case HTML_TAG:
        return skip_blanks(scan, at) >= scan->end;
    case HTML_COMMENT:
        return holds(scan, at, "-->");
    default:
        return holds(scan, at, "</pre>") || holds(scan, at, "</script>") ||
               holds(scan, at, "</style>") || holds(scan, at, "</textarea>");
    }
}

/* --- lines --- */

static int close_fence(struct scan *scan, size_t to)
{
    scan->fence = 0;
    return add_block(scan, scan->fence_at, to, 0, false);
}

/* The line belongs to code or HTML that is open. */
static bool inside(struct scan *scan, size_t matched, int *ret_rv)
{
    size_t columns = indent(scan), first = skip_blanks(scan, scan->at);
    if (scan->fence != 0 && matched < scan->fence_depth) {
        *ret_rv = close_fence(scan, scan->line);
    } else if (scan->fence != 0) {
        size_t len = count_of(scan, first, scan->fence);
        if (columns < CODE_INDENT && len >= scan->fence_len &&
            skip_blanks(scan, first + len) >= scan->end) {
            *ret_rv = close_fence(scan, scan->next);
        }
        return true;
    }
    if (scan->html != HTML_NONE && matched < scan->html_depth) {
        scan->html = HTML_NONE;
    } else if (scan->html != HTML_NONE) {
        scan->html = ends_html(scan, first) ? HTML_NONE : scan->html;
        return true;
    }
    return false;
}

/* Whether a heading, a fence, HTML or a break stands at first; the line is done with it then.
 * continues: if not, the line goes on with the open paragraph. */
static bool begins_block(struct scan *scan, size_t first, bool continues, int *ret_rv)
{
    uint32_t level;
    bool top = scan->depth == 0;
    size_t len;
    if ((level = atx_level(scan, first)) > 0) {
        *ret_rv = top ? add_block(scan, scan->line, scan->next, level, false) : 0;
    } else if ((len = fence_length(scan, first)) > 0) {
        scan->fence = peek(scan, first);
        scan->fence_len = len;
        scan->fence_at = scan->line;
        scan->fence_depth = scan->depth;
    } else if ((scan->html = html_kind(scan, first, scan->paragraph)) != HTML_NONE) {
        scan->html_depth = scan->depth;
        scan->html = scan->html != HTML_TAG && ends_html(scan, first) ? HTML_NONE : scan->html;
    } else if (continues && (level = setext_level(scan, first)) > 0) {
        *ret_rv = top ? add_block(scan, scan->paragraph_at, scan->next, level, true) : 0;
    } else if (!is_thematic_break(scan, first)) {
        return false;
    }
    scan->paragraph = false;
    return true;
}

static int scan_line(struct scan *scan)
{
    int rv = 0;
    size_t matched = match_containers(scan), open = scan->depth;
    bool continued = scan->paragraph && matched == open; /* Of the open paragraph's container. */
    if (inside(scan, matched, &rv) || rv != 0) {
        return rv;
    }
    /* What is opened here takes the place of what does not go on; but text that opens nothing may
     * go on with the paragraph of a container that is not there any more on this line. */
    scan->depth = matched;
    bool opened = false;
    while (push_container(scan, scan->paragraph && matched == open)) {
        opened = true;
        scan->paragraph = false;
    }
    size_t first = skip_blanks(scan, scan->at);
    if (first >= scan->end) {
        scan->paragraph = false;
        return 0;
    }
    if (indent(scan) < CODE_INDENT && begins_block(scan, first, continued && !opened, &rv)) {
        return rv;
    }
    if (scan->paragraph && !opened) {
        scan->depth = open;
    } else if (indent(scan) < CODE_INDENT) {
        scan->paragraph = true;
        scan->paragraph_at = scan->line;
    } else {
        scan->paragraph = false;
    }
    return 0;
}

int sl_chunk_markdown(struct sl_span text, struct chunk_blocks *ret)
{
    struct scan scan = {.text = text, .blocks = ret};
    int rv = 0;
    *ret = (struct chunk_blocks){0};
    while (rv == 0 && scan.next < text.len) {
        open_line(&scan, scan.next);
        rv = scan_line(&scan);
    }
    if (rv == 0 && scan.fence != 0) {
        rv = close_fence(&scan, text.len);
    }
    return rv;
}

/* --- titles --- */

void sl_chunk_title(struct sl_span text, const struct chunk_block *heading, struct sl_buf *out)
{
    struct sl_span title = {text.data + heading->from, heading->to - heading->from};
    title.len = sl_chunk_trim_end(title, 0, title.len);
    size_t at = sl_chunk_skip_space(title, 0);
    if (!heading->underlined) {
        at += heading->level;
        size_t end = title.len;
        while (end > at && title.data[end - 1] == '#') {
            end--;
        }
        title.len = end == at || is_blank(title.data[end - 1]) ? end : title.len;
    } else { /* The underline goes. */
        while (title.data[title.len - 1] == '=' || title.data[title.len - 1] == '-') {
            title.len--;
        }
    }
    title.len = sl_chunk_trim_end(title, at, title.len);
    size_t begin = out->len;
    for (size_t next; at < title.len && out->len <= SL_HEADINGS_MAX; at = next) {
        next = at + sl_chunk_length(title, at);
        if (!sl_chunk_space(title, at)) {
            sl_buf_append(out, title.data + at, next - at);
        } else if (out->len > begin && out->data[out->len - 1] != ' ') {
            sl_buf_append(out, " ", 1);
        }
    }
}
