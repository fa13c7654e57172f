/*
 * What `sluice ingest` would do, without doing it. The files are read, since most of what can be
 * wrong with one is in it; chunks are an estimate, because where a text is cut is the worker's
 * business and follows its options.
 */
#include "workers/cli/ingest_dry.h"

#include "workers/cli/read.h"
#include "workers/cli/terminal.h"

#include <inttypes.h>

/* The defaults of SLUICE_CHUNK_SIZE and SLUICE_CHUNK_OVERLAP. A chunk ends in its last third where
 * a sentence does, so on average about this much before its end. */
enum { CHUNK_SIZE = 500, CHUNK_OVERLAP = 50, CHUNK_SHORTER = 80 };

struct sums {
    uint64_t documents, failed, bytes, chunks;
};

uint64_t cli_estimate_chunks(uint64_t characters)
{
    enum { STEP = CHUNK_SIZE - CHUNK_OVERLAP - CHUNK_SHORTER };
    return characters <= CHUNK_SIZE ? 1 : 1 + (characters - CHUNK_SIZE + STEP - 1) / STEP;
}

static bool read_one(const struct cli_plan *plan, const struct cli_file *file,
                     struct sl_buf *memory, struct sl_span *ret, char why[CLI_WHY_MAX])
{
    if (file->reason != NULL) {
        snprintf(why, CLI_WHY_MAX, "%s", file->reason);
        return false;
    }
    if (file->root == NULL) {
        snprintf(why, CLI_WHY_MAX, "%s", plan->input_why);
        *ret = sl_buf_span(&plan->input);
        return why[0] == '\0';
    }
    bool fine = cli_read_text(file->root, file->id, memory, why);
    *ret = sl_buf_span(memory);
    return fine;
}

static void put_name(const struct cli_terminal *terminal, const char *id)
{
    struct sl_buf name;
    sl_buf_init(&name, 1 << 16);
    cli_put_name(&name, id);
    cli_put_text(terminal, sl_buf_span(&name));
    sl_buf_fini(&name);
}

static void show(const struct cli_terminal *out, const char *id, struct sl_span text,
                 struct sums *sums)
{
    uint64_t chunks = cli_estimate_chunks(cli_text_width(text));
    printf("%10zu bytes  %7" PRIu64 " chunks  ", text.len, chunks);
    put_name(out, id);
    fputc('\n', stdout);
    sums->documents++;
    sums->bytes += text.len;
    sums->chunks += chunks;
}

int cli_ingest_dry_run(const struct cli_plan *plan)
{
    struct cli_terminal out, err;
    struct sums sums = {.documents = 0};
    struct sl_buf memory;
    cli_terminal_init(&out, stdout);
    cli_terminal_init(&err, stderr);
    sl_buf_init(&memory, CLI_TEXT_ROOM);
    for (size_t i = 0; i < plan->files.len; i++) {
        const struct cli_file *file = &plan->files.items[i];
        char why[CLI_WHY_MAX] = "";
        struct sl_span text;
        if (read_one(plan, file, &memory, &text, why)) {
            show(&out, file->id, text, &sums);
            continue;
        }
        sums.failed++;
        fflush(stdout);
        fprintf(stderr, "%swould fail%s  ", cli_style(&err, CLI_RED), cli_style(&err, CLI_PLAIN));
        put_name(&err, file->id);
        fprintf(stderr, ": %s\n", why);
    }
    sl_buf_fini(&memory);
    printf("{\"documents\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"estimated_chunks\":%" PRIu64 "}\n",
           sums.documents, sums.failed, sums.bytes, sums.chunks);
    return sums.failed > 0 ? CLI_FAILED : CLI_DONE;
}
