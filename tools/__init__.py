"""Programs for the development of this repository; none of them is installed."""
