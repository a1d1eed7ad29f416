/* A service that counts itself: adds one to the number in a file when its main begins, and takes it away when it is asked to end, so
   that whoever reads the file knows how many run.

   counted FILE   runs until SIGTERM. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static int *running;

static void end(int signal) {
    (void)signal;
    __atomic_sub_fetch(running, 1, __ATOMIC_SEQ_CST);
    _exit(0);
}

int main(int argc, char **argv) {
    int file = argc > 1 ? open(argv[1], O_RDWR) : -1;
    running = mmap(NULL, sizeof *running, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (running == MAP_FAILED) return 1;
    signal(SIGTERM, end);
    __atomic_add_fetch(running, 1, __ATOMIC_SEQ_CST);
    for (;;) pause();
}
