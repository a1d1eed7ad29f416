/* The wall clock of a program, as far from the machine's as a file says: nobody can set the clock of a machine that is
 * shared. Preloaded, it stands before what the C library asks the kernel (ld.so(8)). The clock that only goes forward is
 * the kernel's, here as there. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Descriptors that are looked after: those of timers are low. */
#define MOST 1024
/* Between two looks whether somebody set the clock. */
#define LOOK_NS 1000000

struct timer {
	int is_wall, is_to_be_told, was_told;
	int64_t seen;
};

static const int64_t zero;
/* Seconds that this wall clock is ahead of the machine's. */
static const volatile int64_t *ahead = &zero;
static struct timer timers[MOST];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("TOKA_TEST_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof zero, PROT_READ, MAP_SHARED, file, 0);
	if (map != MAP_FAILED)
		ahead = map;
	if (file >= 0)
		close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = syscall(SYS_clock_gettime, clock, now);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *ahead;
	return result;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

/* Lets the timers ring that are to be told when the clock is set. */
static void *watch(void *nothing)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };
	const struct itimerspec at_once = { .it_value = { .tv_nsec = 1 } };
	for (;; nanosleep(&pause, NULL)) {
		pthread_mutex_lock(&lock);
		for (int fd = 0; fd < MOST; fd++) {
			struct timer *timer = &timers[fd];
			if (!timer->is_to_be_told || timer->was_told || timer->seen == *ahead)
				continue;
			timer->was_told = 1;
			syscall(SYS_timerfd_settime, fd, 0, &at_once, NULL);
		}
		pthread_mutex_unlock(&lock);
	}
	return nothing;
}

int timerfd_create(int clock, int flags)
{
	static int is_watched;
	int fd = syscall(SYS_timerfd_create, clock, flags);
	pthread_t thread;
	if (fd < 0 || fd >= MOST)
		return fd;
	pthread_mutex_lock(&lock);
	timers[fd] = (struct timer){ .is_wall = clock == CLOCK_REALTIME, .seen = *ahead };
	if (!is_watched)
		is_watched = pthread_create(&thread, NULL, watch, NULL) == 0;
	pthread_mutex_unlock(&lock);
	return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	struct itimerspec moved = *new;
	int result, was_set;
	if (fd < 0 || fd >= MOST || !timers[fd].is_wall)
		return syscall(SYS_timerfd_settime, fd, flags, new, old);
	pthread_mutex_lock(&lock);
	struct timer *timer = &timers[fd];
	if ((flags & TFD_TIMER_ABSTIME) && (new->it_value.tv_sec || new->it_value.tv_nsec)) {
		moved.it_value.tv_sec -= *ahead;
		if (moved.it_value.tv_sec < 1)
			moved.it_value.tv_sec = 1;
	}
	result = syscall(SYS_timerfd_settime, fd, flags, &moved, old);
	was_set = timer->is_to_be_told && timer->seen != *ahead;
	timer->is_to_be_told = (flags & TFD_TIMER_CANCEL_ON_SET) != 0;
	timer->was_told = 0;
	timer->seen = *ahead;
	pthread_mutex_unlock(&lock);
	if (result == 0 && was_set && timer->is_to_be_told) {
		errno = ECANCELED;
		return -1;
	}
	return result;
}

ssize_t read(int fd, void *into, size_t count)
{
	ssize_t length = syscall(SYS_read, fd, into, count);
	int was_set = 0;
	if (length != sizeof(uint64_t) || fd < 0 || fd >= MOST || !timers[fd].is_wall)
		return length;
	pthread_mutex_lock(&lock);
	was_set = timers[fd].was_told;
	timers[fd].was_told = 0;
	timers[fd].seen = *ahead;
	pthread_mutex_unlock(&lock);
	if (!was_set)
		return length;
	errno = ECANCELED;
	return -1;
}
