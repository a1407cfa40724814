/* hello: says hello. With --serve it goes on, and says every minute how long it has been up. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int serve = argc == 2 && strcmp(argv[1], "--serve") == 0;

	if (puts("hello from @NAME@") < 0 || fflush(stdout) != 0)
		return 1;
	for (unsigned minutes = 1; serve; minutes++) {
		sleep(60);
		if (printf("up for %u min\n", minutes) < 0 || fflush(stdout) != 0)
			return 1;
	}
	return 0;
}
