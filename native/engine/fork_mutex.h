// A mutex that fork() takes before it copies the process and gives back on both sides.
//
// A plain mutex that another thread holds in that moment would stay locked in the child for ever, around work half done.
// So fork() waits until nobody holds one.
#ifndef TERCET_ENGINE_FORK_MUTEX_H
#define TERCET_ENGINE_FORK_MUTEX_H

#include <mutex>

namespace tercet {

class ForkMutex {
public:
    ForkMutex();
    ~ForkMutex();
    ForkMutex(const ForkMutex&) = delete;
    ForkMutex& operator=(const ForkMutex&) = delete;

    void lock() { mutex.lock(); }
    void unlock() { mutex.unlock(); }

private:
    std::mutex mutex;
};

} // namespace tercet
#endif
