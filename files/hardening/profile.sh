# For a person's shell: what it makes is not for others, and one that is left alone ends. What sudo runs has 022 (sudoers.d/00-…).
umask 027
ulimit -c 0
if [ -z "$TMOUT" ]; then
    readonly TMOUT=1800
    export TMOUT
fi
