/* Two rankings of 20 hits, of which 10 are in both, become one. */
#include "common/fusion.h"
#include "tests/instructions/count.h"
#include "tests/instructions/sample.h"

enum { SHARED = 10 };

static struct sl_span ids[2][SAMPLE_HITS];

static void fuse(void *ctx)
{
    const struct sl_ranking *rankings = ctx;
    struct sl_fused fused[2 * SAMPLE_HITS];
    size_t len = 0;
    CHECK(sl_fuse(rankings, 2, SL_FUSION_K, fused, 2 * SAMPLE_HITS, &len) == 0);
    CHECK(len == 2 * SAMPLE_HITS - SHARED);
}

static unsigned two_rankings_of_20(void)
{
    static char others[SAMPLE_HITS][32];
    const struct sl_hit *hits = sample_hits();
    struct sl_ranking rankings[2] = {{ids[0], SAMPLE_HITS, 1}, {ids[1], SAMPLE_HITS, 1}};
    for (int i = 0; i < SAMPLE_HITS; i++) {
        ids[0][i] = hits[i].chunk_id;
        snprintf(others[i], sizeof(others[i]), "handbook/leases-%d.md_%d", 100 + i, i % 4);
        ids[1][i] = i % 2 == 0 ? hits[SAMPLE_HITS - 1 - i].chunk_id : sl_span_of(others[i]);
    }
    return measure(fuse, rankings);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"two_rankings_of_20", two_rankings_of_20},
        {NULL, NULL},
    };
    return count_main(cases, argc, argv);
}
