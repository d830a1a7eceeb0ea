// Claim: a plan for VGG-16 (14.7 M weights) needs less than 2.5 GiB.
// Command: build/release/benchmarks/peak_memory build/release/bitplan run recipes/vgg16-cifar10.yaml --out FOLDER
// Runs a command and prints one JSON line: its exit status, wall seconds and peak resident memory in GiB.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: peak_memory COMMAND [ARGUMENT ...]\n", stderr);
    return 64;
  }
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child < 0) {
    std::perror("peak_memory: fork");
    return 70;
  }
  if (child == 0) {
    execvp(argv[1], argv + 1);
    std::perror("peak_memory: exec");
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  if (wait4(child, &status, 0, &usage) < 0) {
    std::perror("peak_memory: wait");
    return 70;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  std::printf("{\"exit\": %d, \"wall_seconds\": %.1f, \"peak_rss_gib\": %.3f}\n", exit_status, seconds,
              static_cast<double>(usage.ru_maxrss) / (1 << 20));
  return exit_status;
}
