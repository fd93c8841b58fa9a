"""Personal data of people in China: found by its form, confirmed by what it must fulfil, masked or dropped."""
