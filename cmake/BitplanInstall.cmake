# Installation and the package that find_package(bitplan) finds.
