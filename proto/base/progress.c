/* SPDX-License-Identifier: Apache-2.0 */
/* A progress bar on stderr with the time left, and a terminal curve of block characters. */
#include "linnet/cli.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t monotonic_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void linnet_progress_start(linnet_progress *progress, const linnet_cli *cli, const char *label,
                           uint64_t total)
{
    *progress = (linnet_progress){
        .cli = cli, .label = label, .total = total, .started_ms = monotonic_ms(), .shown_ms = -1000};
    progress->active = !cli->json && !cli->quiet && isatty(fileno(cli->log));
}

void linnet_progress_update(linnet_progress *progress, uint64_t done, const char *note)
{
    enum { WIDTH = 24 };
    if (!progress->active)
        return;
    int64_t now = monotonic_ms();
    if (now - progress->shown_ms < 100 && done < progress->total)
        return;
    progress->shown_ms = now;
    double fraction = progress->total ? (double)done / (double)progress->total : 0;
    double left_s = done ? (double)(now - progress->started_ms) / 1000 * (1 - fraction) / fraction : 0;
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < (int)(fraction * WIDTH + 0.5) ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(progress->cli->log, "\r%s [%s] %llu/%llu  %d:%02d left%s%s\033[K", progress->label, bar,
            (unsigned long long)done, (unsigned long long)progress->total, (int)(left_s / 60),
            (int)fmod(left_s, 60), note ? "  " : "", note ? note : "");
    fflush(progress->cli->log);
}

void linnet_progress_finish(linnet_progress *progress)
{
    if (progress->active) {
        fputs("\r\033[K", progress->cli->log);
        fflush(progress->cli->log);
    }
    progress->active = false;
}

/* The row of the curve at a fraction of the x axis, between its points on a straight line; -1: no value
 * there. */
static int plot_row(const double *y, size_t n, double fraction, double low, double high, int height)
{
    double x = fraction * (double)(n - 1);
    size_t left = (size_t)x, right = left + 1 < n ? left + 1 : left;
    double value = y[left] + (x - (double)left) * (y[right] - y[left]);
    return isfinite(value) ? (int)((value - low) / (high - low) * (height - 1) + 0.5) : -1;
}

void linnet_plot_print(FILE *out, const char *title, const double *y, size_t n, int width, int height)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, y[i]); /* fmin and fmax pass over NaN */
        high = fmax(high, y[i]);
    }
    if (n == 0 || !isfinite(low) || !isfinite(high) || width < 1 || width > 200 || height < 2 || height > 60)
        return;
    if (high == low)
        high = low + 1;
    fprintf(out, "%s\n", title);
    for (int row = height - 1; row >= 0; row--) {
        fprintf(out, "%8.3f |", low + (high - low) * row / (height - 1));
        for (int column = 0; column < width; column++) {
            double fraction = width > 1 ? (double)column / (width - 1) : 0;
            int at = plot_row(y, n, fraction, low, high, height);
            fputs(at == row ? "*" : " ", out);
        }
        fputc('\n', out);
    }
    fprintf(out, "%8s +", "");
    for (int column = 0; column < width; column++)
        fputc('-', out);
    fprintf(out, "\n%10s0%*zu\n", "", width - 1, n - 1);
}
