"""Which classes are known when: phases, class splits and their files."""
