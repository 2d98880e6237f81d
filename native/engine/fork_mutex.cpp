#include "engine/fork_mutex.h"

#include <pthread.h>

#include <unordered_set>

namespace tercet {
namespace {

struct Living {
    std::mutex lock; // guards `all`, and keeps it as it is during a fork
    std::unordered_set<ForkMutex*> all;
};

Living& living();

void before_fork() {
    living().lock.lock();
    for (ForkMutex* mutex : living().all) mutex->lock();
}

void after_fork() {
    for (ForkMutex* mutex : living().all) mutex->unlock();
    living().lock.unlock();
}

Living& living() { // never destroyed: a mutex may outlive static objects
    static Living* const made = [] {
        pthread_atfork(before_fork, after_fork, after_fork);
        return new Living;
    }();
    return *made;
}

} // namespace

ForkMutex::ForkMutex() {
    const std::lock_guard<std::mutex> guard(living().lock);
    living().all.insert(this);
}

ForkMutex::~ForkMutex() {
    const std::lock_guard<std::mutex> guard(living().lock);
    living().all.erase(this);
}

} // namespace tercet
