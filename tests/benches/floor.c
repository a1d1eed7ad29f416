/* The floor that Toka's figures for many agents stand beside: a loop that forks N sleepers, each awaited until its exec
   has succeeded, and then ends them all. No supervision, no confinement, no log, no control group: nothing that forks
   N processes can be much faster.

   floor [N]   prints the milliseconds until all run, and from the first SIGTERM until all are reaped. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Returns when the child's exec has closed its end of the pipe. */
static pid_t start_sleeper(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) exit(1);
    pid_t pid = fork();
    if (pid < 0) exit(1);
    if (pid == 0) {
        execl("/bin/sleep", "sleep", "1000", (char *)NULL);
        if (write(ends[1], "!", 1) < 0) _exit(126);
        _exit(127);
    }
    close(ends[1]);
    char failed;
    if (read(ends[0], &failed, 1) != 0) exit(1);
    close(ends[0]);
    return pid;
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 1000;
    pid_t *pids = calloc(n, sizeof *pids);
    if (!pids) return 1;
    double begun = now_ms();
    for (int i = 0; i < n; i++) pids[i] = start_sleeper();
    double running = now_ms();
    for (int i = 0; i < n; i++) kill(pids[i], SIGTERM);
    for (int i = 0; i < n; i++) waitpid(pids[i], NULL, 0);
    double ended = now_ms();
    printf("%.3f %.3f\n", running - begun, ended - running);
    return 0;
}
